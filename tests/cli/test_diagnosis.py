"""``ldp teacher check``: every fault that it names is found, and a right description is left alone."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from onnx_cases import (
    SIDE,
    Rows,
    clairvoyant_description,
    clairvoyant_manifest,
    with_bins_first,
    with_scores,
    with_softmax,
    write_clairvoyant,
    write_description,
)

from pipeline.cli.diagnosis import Verdict, diagnose
from pipeline.cli.options import override
from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.datasets.coco import read_coco
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.onnx.description import OnnxDescription, read_onnx_description
from pipeline.onnx.models import onnx_model
from pipeline.views.manifest import Manifest

CPU = torch.device("cpu")
MODELS, SAMPLE = os.environ.get("LD_MODELS"), os.environ.get("LD_COCO_SAMPLE")
NANODET = Path(__file__).parents[2] / "recipes/teachers/nanodet_plus_m_416.yaml"
IMAGES = 24

Fault = Callable[[Any], dict[str, Any]]
"""What stands in a wrong description, by dotted key, from the document of a right one."""


def halved(right: Any) -> dict[str, Any]:
    start, bins = right["edges"]["tensors"]["columns"][0], right["edges"]["bins"] // 2
    return {"edges.bins": bins, "edges.tensors.columns": [start, start + 4 * bins]}


def rescaled(mean: float, std: float) -> Fault:
    return lambda _: {"preprocessing.mean": [mean] * 3, "preprocessing.std": [std] * 3}


def reordered(order: Callable[[list[Any]], list[Any]]) -> Fault:
    return lambda right: {"classes": order(right["classes"])}


FAULTS: list[tuple[str, Fault]] = [
    ("boxes are shifted by", lambda right: {"points.cell_offset": 0.5 - right["points"]["cell_offset"]}),
    ("channels are swapped", lambda right: {"preprocessing.color": right["preprocessing"]["color"][::-1]}),
    ("edges are out of order", lambda _: {"edges.order": list("tlbr")}),
    ("rows and columns of the points are swapped", lambda _: {"points.order": "column_major"}),
    ("pixels are scaled otherwise", rescaled(0, 255)),
    ("edges have another number of bins", halved),
    ("class channels are shifted by one", reordered(lambda rows: [*rows[1:], rows[0]])),
]
ONLY_NANODET: list[tuple[str, Fault]] = [
    ("pixels are scaled otherwise", rescaled(0, 1)),
    ("pixels are scaled otherwise", rescaled(127.5, 127.5)),
    ("class channels are in", reordered(lambda rows: sorted(rows, key=lambda row: row["name"]))),
    ("class channels are in the order of the ids", reordered(lambda rows: Random(0).sample(rows, len(rows)))),
    ("images are fitted", lambda _: {"preprocessing.fit": "letterbox", "preprocessing.fill": 114}),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return clairvoyant_manifest(tmp_path_factory.mktemp("images"))


def clairvoyant(
    folder: Path, manifest: Manifest, edit: Callable[[Rows], Rows] = np.asarray
) -> OnnxDescription:
    write_clairvoyant(manifest, folder / "c.onnx", edit)
    return read_onnx_description(write_description(clairvoyant_description("c.onnx"), folder / "c.yaml"))


def spoiled(right: OnnxDescription, fault: Fault) -> OnnxDescription:
    return structure(OnnxDescription, override(right.to_json(), fault(right.to_json())), "here")


def check(description: OnnxDescription, manifest: Manifest, side: int = SIDE) -> Verdict:
    model = onnx_model(replace(description, sha256=None), Path(description.file), manifest.categories)
    return diagnose(model, manifest, (side, side), CPU)


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_fault_is_named_and_put_right(tmp_path: Path, manifest: Manifest, name: str, fault: Fault) -> None:
    verdict = check(spoiled(clairvoyant(tmp_path, manifest), fault), manifest)
    best = verdict.suspects[0]
    assert best.fault.startswith(name)
    assert best.agreement.ap == 1.0 > verdict.described.ap


BOTH = 'edges.activation: "softmax", edges.layout: "bins_first"'


@pytest.mark.parametrize(
    ("edit", "described", "remedies"),
    [
        (with_scores, {}, ['cls.activation: "sigmoid"']),
        (with_bins_first, {}, ['edges.layout: "bins_first"']),
        (with_softmax, {"edges.activation": "softmax"}, []),
        (lambda rows: with_bins_first(with_softmax(rows)), {}, [BOTH]),
    ],
)
def test_what_the_file_has_done_is_noticed(
    tmp_path: Path, manifest: Manifest, edit: Callable[[Rows], Rows], described: Any, remedies: list[str]
) -> None:
    verdict = check(spoiled(clairvoyant(tmp_path, manifest, edit), lambda _: described), manifest)
    assert [suspect.remedy for suspect in verdict.suspects[:1]] == remedies
    assert remedies or verdict.described.weakness is None


def test_what_the_outputs_rule_out_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(TeacherError, match=r"cls\.activation: expected 'none', for .* from -6 to 3"):
        check(spoiled(clairvoyant(tmp_path, manifest), lambda _: {"cls.activation": "sigmoid"}), manifest)


needs_nanodet = pytest.mark.skipif(
    MODELS is None or SAMPLE is None,
    reason="LD_MODELS or LD_COCO_SAMPLE names no folder with NanoDet-Plus, or with real COCO images",
)


@pytest.fixture(scope="module")
def photos() -> Manifest:
    return read_coco(Path(str(SAMPLE)) / "annotations/instances_val.json", str(SAMPLE), "val")


@pytest.fixture(scope="module")
def few(photos: Manifest) -> Manifest:
    return dataclasses.replace(photos, images=photos.images[:IMAGES])


@pytest.fixture(scope="module")
def nanodet() -> OnnxDescription:
    description = read_onnx_description(NANODET)
    return replace(description, file=str(Path(str(MODELS)) / Path(description.file).name))


@needs_nanodet
def test_nanodet_reaches_its_independently_measured_ap_and_its_description_is_left_alone(
    nanodet: OnnxDescription, photos: Manifest, few: Manifest
) -> None:
    model = onnx_model(nanodet, Path(nanodet.file), photos.categories).load()
    found = detect(model, photos, (416, 416), batch_size=8, device=CPU)
    summary = evaluate(photos, found, (32, 96)).summary
    assert summary["AP"] == pytest.approx(38.4, abs=0.3)
    assert summary["AP50"] == pytest.approx(55.4, abs=0.3)
    assert check(nanodet, few, 416).suspects == []


@needs_nanodet
@pytest.mark.slow
@pytest.mark.parametrize(("name", "fault"), FAULTS + ONLY_NANODET)
def test_a_fault_in_nanodets_description_is_named(
    nanodet: OnnxDescription, few: Manifest, name: str, fault: Fault
) -> None:
    best = check(spoiled(nanodet, fault), few, 416).suspects[0]
    assert best.fault.startswith(name)
    assert best.agreement.ap == pytest.approx(0.385, abs=0.01)
