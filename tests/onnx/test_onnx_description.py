"""A teacher's description: what is wrong in it is named by file and key."""

from pathlib import Path
from typing import Any

import pytest
from onnx_cases import clairvoyant_description, write_description

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.onnx.description import OnnxDescription, read_onnx_description

RECIPES = Path(__file__).parents[2] / "recipes"


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A description with one value replaced."""
    *parents, last = path.split(".")
    inner = document
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return document


def test_a_description_comes_back_from_its_json() -> None:
    document = clairvoyant_description("a.onnx")
    description = structure(OnnxDescription, document, "here")
    assert structure(OnnxDescription, description.to_json(), "there") == description
    assert description.to_json() == document


@pytest.mark.parametrize("path", sorted(RECIPES.glob("teachers/*.yaml")), ids=lambda path: path.stem)
def test_every_described_teacher_is_valid(path: Path) -> None:
    description = read_onnx_description(path)
    assert Path(description.file).suffix == ".onnx"


def test_the_file_lies_relative_to_the_description(tmp_path: Path) -> None:
    path = write_description(clairvoyant_description("../models/a.onnx"), tmp_path / "b" / "t.yaml")
    assert Path(read_onnx_description(path).file).resolve() == tmp_path / "models" / "a.onnx"


def test_an_environment_variable_may_stand_in_the_files_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_description(clairvoyant_description("${SOME_MODELS}/a.onnx"), tmp_path / "t.yaml")
    with pytest.raises(ConfigError, match=r"t\.yaml: teacher\.file: expected the environment variable SOME_"):
        read_onnx_description(path)
    monkeypatch.setenv("SOME_MODELS", str(tmp_path / "models"))
    assert Path(read_onnx_description(path).file) == tmp_path / "models" / "a.onnx"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input.size", [64], r"teacher\.input\.size: expected a list of length 2"),
        ("input.size", [96, 64], r"teacher\.input\.size: expected \(height, width\) with height <= width"),
        (
            "preprocessing.fit",
            "crop",
            r"teacher\.preprocessing\.fit: expected one of 'keep_ratio', 'stretch'",
        ),
        ("preprocessing.fit", "keep_ratio", r"teacher\.input\.size: expected null with fit 'keep_ratio'"),
        ("preprocessing.fit", "letterbox", r"teacher\.preprocessing\.fill: expected a gray level"),
        ("points.strides", [8, 8], r"teacher\.points\.strides: expected different positive numbers"),
        ("points.order", "spiral", r"teacher\.points\.order: expected one of"),
        ("points.cell_offset", None, r"teacher\.points\.cell_offset: expected a number"),
        ("cls.tensors.columns", [0, 3], r"teacher\.cls\.tensors\.columns: expected 2 columns \(classes\)"),
        (
            "edges.tensors.columns",
            [2, 35],
            r"edges\.tensors\.columns: expected 32 columns \(4 \* bins\)",
        ),
        ("edges.tensors.columns", [1, 33], r"edges\.tensors\.columns: expected others than the classes'"),
        ("name", "a\nb", r"teacher\.name: expected a line of text, but got 'a\\nb'"),
        ("edges.tensors.columns", [3, 2], r"teacher\.edges\.tensors\.columns: expected \[first, end\]"),
        ("edges.order", ["l", "t", "r", "r"], r"teacher\.edges\.order: expected each of l, t, r, b once"),
        ("edges.bins", 1, r"teacher\.edges\.bins: expected an integer >= 2"),
        (
            "cls.tensors.names",
            ["a", "b"],
            r"teacher\.cls\.tensors\.names: expected one tensor, or one for each of the 3",
        ),
        ("suppression.iou", 0, r"teacher\.suppression\.iou: expected a number > 0"),
        (
            "classes",
            [{"category_id": 1, "name": "a"}] * 2,
            r"classes: expected every category_id once",
        ),
        ("boxes", 4, r"teacher: unknown key 'boxes'"),
    ],
)
def test_a_fault_is_named_with_file_and_key(tmp_path: Path, path: str, value: object, message: str) -> None:
    document = changed(clairvoyant_description("a.onnx"), path, value)
    with pytest.raises(ConfigError, match=rf"t\.yaml: (teacher\.)?{message}"):
        read_onnx_description(write_description(document, tmp_path / "t.yaml"))


def test_a_missing_key_and_a_missing_file_are_named(tmp_path: Path) -> None:
    document = clairvoyant_description("a.onnx")
    del document["edges"]["bins"]
    with pytest.raises(ConfigError, match=r"t\.yaml: teacher\.edges: missing key 'bins'"):
        read_onnx_description(write_description(document, tmp_path / "t.yaml"))
    with pytest.raises(ConfigError, match=r"none\.yaml: expected the description of a teacher"):
        read_onnx_description(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml: expected YAML"):
        read_onnx_description(tmp_path / "broken.yaml")
