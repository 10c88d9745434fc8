"""A teacher's description: what is wrong in it is named by file and key."""

from pathlib import Path

import pytest
from onnx_cases import clairvoyant_description, write_description

from pipeline.core.errors import ConfigError
from pipeline.onnx.description import read_onnx_description

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("teachers/*.yaml")), ids=lambda path: path.stem)
def test_every_described_teacher_is_valid(path: Path) -> None:
    assert Path(read_onnx_description(path).file).suffix == ".onnx"


def test_the_file_lies_relative_to_the_description_or_where_an_environment_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_description(clairvoyant_description("../models/a.onnx"), tmp_path / "b" / "t.yaml")
    assert Path(read_onnx_description(path).file).resolve() == tmp_path / "models" / "a.onnx"
    write_description(clairvoyant_description("${SOME_MODELS}/a.onnx"), path)
    with pytest.raises(ConfigError, match=r"t\.yaml: teacher\.file: expected the environment variable SOME_"):
        read_onnx_description(path)
    monkeypatch.setenv("SOME_MODELS", str(tmp_path / "models"))
    assert Path(read_onnx_description(path).file) == tmp_path / "models" / "a.onnx"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("input.size", [96, 64], r"input\.size: expected \(height, width\), height <= width"),
        ("preprocessing.fit", "crop", r"preprocessing\.fit: expected one of 'keep_ratio', 'stretch'"),
        ("preprocessing.fit", "keep_ratio", r"input\.size: expected null with fit 'keep_ratio'"),
        ("points.strides", [8, 8], r"points\.strides: expected different numbers"),
        ("cls.tensors.columns", [0, 3], r"cls\.tensors\.columns: expected 2 \(classes\)"),
        ("cls.tensors.names", ["a", "b"], r"cls\.tensors\.names: expected one, or one a stride"),
        ("edges.tensors.columns", [2, 35], r"edges\.tensors\.columns: expected 32 \(4 \* bins\)"),
        ("edges.tensors.columns", [1, 33], r"edges\.tensors\.columns: expected others than the classes'"),
        ("edges.tensors.columns", [3, 2], r"edges\.tensors\.columns: expected \[first, end\]"),
        ("edges.order", ["l", "t", "r", "r"], r"edges\.order: expected each of l, t, r, b once"),
        ("edges.bins", 1, r"edges\.bins: expected an integer >= 2"),
        ("name", "a\nb", r"name: expected a text matching regex"),
    ],
)
def test_a_fault_is_named_with_file_and_key(tmp_path: Path, path: str, value: object, message: str) -> None:
    document = inner = clairvoyant_description("a.onnx")
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    with pytest.raises(ConfigError, match=rf"t\.yaml: teacher\.{message}"):
        read_onnx_description(write_description(document, tmp_path / "t.yaml"))
