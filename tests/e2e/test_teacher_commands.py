"""``ldp teacher evaluate`` and ``ldp teacher check`` as their user meets them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from onnx_cases import (
    clairvoyant_description,
    clairvoyant_manifest,
    with_random_values,
    write_clairvoyant,
    write_description,
)

from pipeline.cli.main import main
from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.evaluation.coco_ap import to_coco
from pipeline.training.config import PrepareTeacherConfig

RECIPES = Path(__file__).parents[2] / "recipes"

Ldp = Callable[..., str]


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
    """Run `ldp teacher ...` in this process; what it prints, and its error."""
    monkeypatch.setenv("LDP_DEVICE", "cpu")

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["ldp", "teacher", *map(str, arguments)])
        try:
            main()
        except SystemExit as ended:
            return f"{capsys.readouterr().out}exit: {ended.code}"
        return capsys.readouterr().out

    return run


def test_any_described_teacher_is_evaluated_without_a_workspace(
    ldp: Ldp, dataset: Path, tmp_path: Path
) -> None:
    written = tmp_path / "ap.json"
    table = ldp("evaluate", "--description", dataset / "c.yaml", "--dataset", dataset, "--json", written)
    figures = json.loads(written.read_text())["clairvoyant"]
    assert figures["AP50"] > 80
    assert f"| clairvoyant | {figures['AP']:.2f} |" in table


def test_a_right_description_is_said_to_be_right(ldp: Ldp, dataset: Path) -> None:
    said = ldp("check", dataset / "c.yaml", "--dataset", dataset)
    assert "nothing looks wrong" in said
    assert "exit" not in said


def test_a_wrong_description_ends_with_its_fault_and_remedy(ldp: Ldp, dataset: Path) -> None:
    document = clairvoyant_description("c.onnx")
    document["points"]["cell_offset"] = 0.0
    wrong = write_description(document, dataset / "wrong.yaml")
    said = ldp("check", wrong, "--dataset", dataset)
    assert "-> boxes are shifted by half a cell?" in said
    assert said.endswith("wrong.yaml: boxes are shifted by half a cell; try points.cell_offset: 0.5")


def test_a_teacher_that_finds_nothing_fails_with_what_else_the_graph_has(ldp: Ldp, dataset: Path) -> None:
    manifest = clairvoyant_manifest(dataset / "again")
    write_clairvoyant(manifest, dataset / "random.onnx", with_random_values)
    described = write_description(clairvoyant_description("random.onnx"), dataset / "random.yaml")
    said = ldp("check", described, "--dataset", dataset)
    assert "nothing looks wrong" not in said
    assert "  said [84, 34]" in said
    assert "exit: error: " in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "teachers/a.yaml"}, "detector: expected null with the .yaml description of an ONNX file"),
        ({"detector": None}, "detector: expected null with the .yaml description of an ONNX file"),
        ({"source": "pipeline/training", "detector": None}, "source: expected pipeline/training to train"),
    ],
)
def test_a_recipe_that_names_half_a_teacher_is_refused(changes: dict[str, object], message: str) -> None:
    recipe = yaml.safe_load((RECIPES / "smoke/params.yaml").read_text())["prepare_teacher"]
    given = recipe | {"source": "a.safetensors", "views": None, "train": None}
    structure(PrepareTeacherConfig, given, "here")
    with pytest.raises(ConfigError, match=message):
        structure(PrepareTeacherConfig, given | changes, "here")
