"""``ldp teacher check``: every fault that it names is found, and a right description is left alone."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

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
    with_random_values,
    with_scores,
    with_softmax,
    write_clairvoyant,
    write_description,
)

from pipeline.cli.diagnosis import Verdict, diagnose, weakness
from pipeline.cli.teacher import MIN_TRUE_SCORE
from pipeline.core.errors import TeacherError
from pipeline.datasets.coco import read_coco
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.onnx.description import ClassConfig, OnnxDescription, read_onnx_description
from pipeline.onnx.models import onnx_model
from pipeline.views.manifest import Manifest

CPU = torch.device("cpu")
MODELS, SAMPLE = os.environ.get("LD_MODELS"), os.environ.get("LD_COCO_SAMPLE")
NANODET = Path(__file__).parents[2] / "recipes/teachers/nanodet_plus_m_416.yaml"
IMAGES = 24

Fault = Callable[[OnnxDescription], OnnxDescription]


def shifted(right: OnnxDescription) -> OnnxDescription:
    offset = 0.5 - right.points.cell_offset
    return replace(right, points=replace(right.points, cell_offset=offset))


def swapped(right: OnnxDescription) -> OnnxDescription:
    pixels = right.preprocessing
    return replace(right, preprocessing=replace(pixels, color="RGB" if pixels.color == "BGR" else "BGR"))


def disordered(right: OnnxDescription) -> OnnxDescription:
    return replace(right, edges=replace(right.edges, order=("t", "l", "b", "r")))


def turned(right: OnnxDescription) -> OnnxDescription:
    return replace(right, points=replace(right.points, order="column_major"))


def rescaled(mean: float, std: float) -> Fault:
    def fault(right: OnnxDescription) -> OnnxDescription:
        return replace(right, preprocessing=replace(right.preprocessing, mean=(mean,) * 3, std=(std,) * 3))

    return fault


def reclassed(order: Callable[[tuple[ClassConfig, ...]], Sequence[ClassConfig]]) -> Fault:
    return lambda right: replace(right, classes=tuple(order(right.classes)))


def shuffled(rows: tuple[ClassConfig, ...]) -> list[ClassConfig]:
    return [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]


def halved(right: OnnxDescription) -> OnnxDescription:
    assert right.edges.tensors.columns
    start, bins = right.edges.tensors.columns[0], right.edges.bins // 2
    tensors = replace(right.edges.tensors, columns=(start, start + 4 * bins))
    return replace(right, edges=replace(right.edges, bins=bins, tensors=tensors))


def letterboxed(right: OnnxDescription) -> OnnxDescription:
    return replace(right, preprocessing=replace(right.preprocessing, fit="letterbox", fill=114))


FAULTS: list[tuple[Fault, str, str]] = [
    (shifted, "boxes are shifted by half a cell", "points.cell_offset"),
    (swapped, "channels are swapped", "preprocessing.color"),
    (disordered, "edges are out of order", "edges.order: [l, t, r, b]"),
    (turned, "rows and columns of the points are swapped", "points.order: row_major"),
    (rescaled(0, 255), "pixels are scaled otherwise", "preprocessing.mean"),
    (halved, "edges have another number of bins", "edges.bins: 8"),
    (reclassed(lambda rows: [*rows[1:], rows[0]]), "class channels are shifted by one", "classes in the"),
]
ONLY_NANODET: list[tuple[Fault, str, str]] = [
    (rescaled(0, 1), "pixels are scaled otherwise", "preprocessing.mean"),
    (rescaled(127.5, 127.5), "pixels are scaled otherwise", "preprocessing.mean"),
    (reclassed(lambda rows: sorted(rows, key=lambda row: row.name)), "class channels are in", "classes in"),
    (reclassed(shuffled), "class channels are in the order of the ids", "classes in"),
    (letterboxed, "images are fitted into the input in another way", "preprocessing.fit: stretch"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return clairvoyant_manifest(tmp_path_factory.mktemp("images"))


def clairvoyant(
    folder: Path, manifest: Manifest, edit: Callable[[Rows], Rows] = np.asarray
) -> OnnxDescription:
    write_clairvoyant(manifest, folder / "c.onnx", edit)
    return read_onnx_description(write_description(clairvoyant_description("c.onnx"), folder / "c.yaml"))


def check(description: OnnxDescription, manifest: Manifest, side: int = SIDE) -> Verdict:
    model = onnx_model(replace(description, sha256=None), Path(description.file), manifest.categories)
    return diagnose(model, manifest, (side, side), CPU)


def test_a_right_description_is_left_alone(tmp_path: Path, manifest: Manifest) -> None:
    verdict = check(clairvoyant(tmp_path, manifest), manifest)
    assert verdict.described.recall > 0.8
    assert verdict.suspects == []


@pytest.mark.parametrize(("fault", "name", "remedy"), FAULTS, ids=[name for _, name, _ in FAULTS])
def test_a_fault_is_named_with_its_remedy(
    tmp_path: Path, manifest: Manifest, fault: Fault, name: str, remedy: str
) -> None:
    verdict = check(fault(clairvoyant(tmp_path, manifest)), manifest)
    best = verdict.suspects[0]
    assert best.fault.startswith(name)
    assert best.remedy.startswith(remedy)
    assert best.agreement.ap > verdict.described.ap


@pytest.mark.parametrize(
    ("edit", "remedy"),
    [(with_scores, "cls.activation: sigmoid"), (with_bins_first, "edges.layout: bins_first")],
)
def test_what_the_file_has_done_is_noticed(
    tmp_path: Path, manifest: Manifest, edit: Callable[[Rows], Rows], remedy: str
) -> None:
    verdict = check(clairvoyant(tmp_path, manifest, edit), manifest)
    assert verdict.suspects[0].remedy == remedy


def test_edges_that_are_through_a_softmax_are_noticed_and_undone(tmp_path: Path, manifest: Manifest) -> None:
    wrong = clairvoyant(tmp_path, manifest, with_softmax)
    with pytest.raises(TeacherError, match=r"edges\.activation: expected 'softmax'"):
        check(wrong, manifest)
    verdict = check(replace(wrong, edges=replace(wrong.edges, activation="softmax")), manifest)
    assert weakness(verdict.described) is None
    assert verdict.suspects == []
    both = clairvoyant(tmp_path, manifest, lambda rows: with_bins_first(with_softmax(rows)))
    remedy = check(both, manifest).suspects[0].remedy
    assert remedy == "edges.activation: softmax, layout: bins_first"


def test_a_random_network_finds_nothing_and_no_remedy_is_proposed(tmp_path: Path, manifest: Manifest) -> None:
    verdict = check(clairvoyant(tmp_path, manifest, with_random_values), manifest)
    assert weakness(verdict.described)
    assert verdict.suspects == []


def test_a_teacher_of_other_points_is_said_to_teach_no_classes(tmp_path: Path, manifest: Manifest) -> None:
    right = check(clairvoyant(tmp_path, manifest), manifest)
    assert right.true_score > 0.3
    silent = check(clairvoyant(tmp_path, manifest, lambda rows: np.minimum(rows, -3.0)), manifest)
    assert silent.true_score < MIN_TRUE_SCORE


def test_a_sigmoid_that_is_not_there_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    right = clairvoyant(tmp_path, manifest)
    with pytest.raises(TeacherError, match=r"cls\.activation: expected 'none', for .* from -6 to 3"):
        check(replace(right, cls=replace(right.cls, activation="sigmoid")), manifest)


@pytest.fixture(scope="module")
def photos() -> Manifest:
    return read_coco(Path(str(SAMPLE)) / "annotations/instances_val.json", str(SAMPLE), "val")


@pytest.fixture(scope="module")
def nanodet() -> OnnxDescription:
    description = read_onnx_description(NANODET)
    return replace(description, file=str(Path(str(MODELS)) / Path(description.file).name))


needs_nanodet = pytest.mark.skipif(
    MODELS is None or SAMPLE is None,
    reason="LD_MODELS or LD_COCO_SAMPLE names no folder with NanoDet-Plus, or with real COCO images",
)


@needs_nanodet
def test_nanodet_reaches_its_independently_measured_ap(nanodet: OnnxDescription, photos: Manifest) -> None:
    model = onnx_model(nanodet, Path(nanodet.file), photos.categories).load()
    found = detect(model, photos, (416, 416), batch_size=8, device=CPU)
    summary = evaluate(photos, found, (32, 96)).summary
    assert summary["AP"] == pytest.approx(38.4, abs=0.3)
    assert summary["AP50"] == pytest.approx(55.4, abs=0.3)


@needs_nanodet
def test_nanodets_description_is_left_alone(nanodet: OnnxDescription, photos: Manifest) -> None:
    few = dataclasses.replace(photos, images=photos.images[:IMAGES])
    assert check(nanodet, few, 416).suspects == []


@needs_nanodet
@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name", "remedy"), FAULTS + ONLY_NANODET)
def test_a_fault_in_nanodets_description_is_named(
    nanodet: OnnxDescription, photos: Manifest, fault: Fault, name: str, remedy: str
) -> None:
    few = dataclasses.replace(photos, images=photos.images[:IMAGES])
    best = check(fault(nanodet), few, 416).suspects[0]
    assert best.fault.startswith(name)
    assert best.remedy.startswith(remedy)
