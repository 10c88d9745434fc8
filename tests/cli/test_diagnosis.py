"""``ldp teacher check``: every fault that it names is found, and a right description is left alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from onnx_cases import (
    SIDE,
    append_sigmoid,
    clairvoyant_description,
    clairvoyant_manifest,
    write_clairvoyant,
    write_description,
)

from pipeline.cli.diagnosis import Check, Verdict
from pipeline.core.errors import TeacherError
from pipeline.datasets.coco import read_coco
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.onnx.description import OnnxDescription, read_onnx_description
from pipeline.onnx.models import onnx_files
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


FAULTS: list[tuple[Fault, str, str]] = [
    (shifted, "boxes are shifted by half a cell", "points.cell_offset"),
    (swapped, "channels are swapped", "preprocessing.color"),
    (disordered, "edges are out of order", "edges.order: [l, t, r, b]"),
    (turned, "rows and columns of the points are swapped", "points.order: row_major"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return clairvoyant_manifest(tmp_path_factory.mktemp("images"))


def clairvoyant(folder: Path, manifest: Manifest, *, sigmoid: bool = False) -> OnnxDescription:
    write_clairvoyant(manifest, folder / "c.onnx", sigmoid=sigmoid)
    return read_onnx_description(write_description(clairvoyant_description("c.onnx"), folder / "c.yaml"))


def check(description: OnnxDescription, manifest: Manifest, side: int = SIDE) -> Verdict:
    return Check(
        description=description,
        weights=Path(description.file),
        manifest=manifest,
        scale=(side, side),
        device=CPU,
    ).run()


def test_a_right_description_is_left_alone(tmp_path: Path, manifest: Manifest) -> None:
    verdict = check(clairvoyant(tmp_path, manifest), manifest)
    assert verdict.described.recall > 0.8
    assert verdict.suspects == ()


@pytest.mark.parametrize(("fault", "name", "remedy"), FAULTS, ids=[name for _, name, _ in FAULTS])
def test_a_fault_is_named_with_its_remedy(
    tmp_path: Path, manifest: Manifest, fault: Fault, name: str, remedy: str
) -> None:
    verdict = check(fault(clairvoyant(tmp_path, manifest)), manifest)
    best = verdict.suspects[0]
    assert best.alternative.fault == name
    assert best.alternative.remedy.startswith(remedy)
    assert best.agreement.ap > verdict.described.ap


def test_logits_that_are_through_a_sigmoid_are_noticed(tmp_path: Path, manifest: Manifest) -> None:
    verdict = check(clairvoyant(tmp_path, manifest, sigmoid=True), manifest)
    assert verdict.suspects[0].alternative.remedy == "cls.activation: sigmoid"
    assert verdict.suspects[0].agreement.score_error < 0.5 * verdict.described.score_error


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
    model = onnx_files(nanodet, Path(nanodet.file), photos.categories).load()
    found = detect(
        model, photos, (416, 416), batch_size=8, device=CPU, progress=lambda batches, _total: batches
    )
    summary = evaluate(photos, found, (32, 96)).summary
    assert summary["AP"] == pytest.approx(38.4, abs=0.3)
    assert summary["AP50"] == pytest.approx(55.4, abs=0.3)


@needs_nanodet
def test_nanodets_description_is_left_alone(nanodet: OnnxDescription, photos: Manifest) -> None:
    few = replace(photos, images=photos.images[:IMAGES])
    assert check(nanodet, few, 416).suspects == ()


@needs_nanodet
@pytest.mark.parametrize(("fault", "name", "remedy"), FAULTS, ids=[name for _, name, _ in FAULTS])
def test_a_fault_in_nanodets_description_is_named(
    nanodet: OnnxDescription, photos: Manifest, fault: Fault, name: str, remedy: str
) -> None:
    few = replace(photos, images=photos.images[:IMAGES])
    best = check(fault(nanodet), few, 416).suspects[0].alternative
    assert (best.fault, best.remedy[: len(remedy)]) == (name, remedy)


@needs_nanodet
def test_nanodet_behind_a_sigmoid_is_noticed(
    nanodet: OnnxDescription, photos: Manifest, tmp_path: Path
) -> None:
    append_sigmoid(Path(nanodet.file), tmp_path / "sigmoid.onnx", len(nanodet.classes))
    cls, edges = (
        replace(part, tensors=replace(part.tensors, names=("rows",))) for part in (nanodet.cls, nanodet.edges)
    )
    behind = replace(nanodet, file=str(tmp_path / "sigmoid.onnx"), cls=cls, edges=edges)
    verdict = check(behind, replace(photos, images=photos.images[:IMAGES]), 416)
    assert verdict.suspects[0].alternative.remedy == "cls.activation: sigmoid"
