"""``ldp teacher evaluate`` and ``ldp teacher check`` as their user meets them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from finished import call
from onnx_cases import (
    clairvoyant_description,
    clairvoyant_manifest,
    with_random_values,
    write_clairvoyant,
    write_description,
)

from pipeline.evaluation.coco_ap import to_coco

Ldp = Callable[[str], tuple[str, str]]
NO_CLASSES = "class distillation would teach nothing"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO-layout folder, with a clairvoyant and its description beside it."""
    folder = tmp_path_factory.mktemp("dataset")
    manifest = clairvoyant_manifest(folder)
    content = to_coco(manifest)
    for row, record in zip(content["images"], manifest.images, strict=True):
        row["file_name"] = record.file_name
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_val.json").write_text(json.dumps(content))
    write_clairvoyant(manifest, folder / "c.onnx")
    write_description(clairvoyant_description("c.onnx"), folder / "c.yaml")
    return folder


@pytest.fixture
def ldp(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ldp:
    """Run ``ldp teacher ...`` in this process; what it prints, and its error."""
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    return lambda arguments: (call(f"ldp teacher {arguments}").error, capsys.readouterr().out)


def test_any_described_teacher_is_evaluated_without_a_workspace(ldp: Ldp, dataset: Path) -> None:
    _, table = ldp(f"evaluate --description {dataset}/c.yaml --dataset {dataset}")
    head, _, row = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    assert row[1] == "clairvoyant"
    assert float(row[head.index("AP50")]) > 80


def test_a_description_is_right_or_has_a_fault_and_a_remedy(ldp: Ldp, dataset: Path) -> None:
    error, printed = ldp(f"check {dataset}/c.yaml --dataset {dataset}")
    assert error == ""
    assert "nothing looks wrong" in printed
    assert NO_CLASSES not in printed
    document = clairvoyant_description("c.onnx")
    document["points"]["cell_offset"] = 0.0
    error, printed = ldp(f"check {write_description(document, dataset / 'w.yaml')} --dataset {dataset}")
    assert "| boxes are shifted by half a cell: points.cell_offset: 0.5 | 1.000 |" in printed
    assert error.endswith("w.yaml: boxes are shifted by half a cell; try points.cell_offset: 0.5")


def test_a_teacher_that_finds_nothing_fails_with_what_else_the_graph_has(ldp: Ldp, dataset: Path) -> None:
    write_clairvoyant(clairvoyant_manifest(dataset / "again"), dataset / "random.onnx", with_random_values)
    described = write_description(clairvoyant_description("random.onnx"), dataset / "random.yaml")
    error, printed = ldp(f"check {described} --dataset {dataset}")
    assert "nothing looks wrong" not in printed
    assert "said [84, 34]" in printed
    assert "expected boxes on at least 20%" in error


def test_a_teacher_of_other_points_is_said_to_teach_no_classes(ldp: Ldp, dataset: Path) -> None:
    manifest = clairvoyant_manifest(dataset / "silent")
    write_clairvoyant(manifest, dataset / "silent.onnx", lambda rows: np.minimum(rows, -3.0))
    described = write_description(clairvoyant_description("silent.onnx"), dataset / "silent.yaml")
    assert NO_CLASSES in ldp(f"check {described} --dataset {dataset}")[1]
