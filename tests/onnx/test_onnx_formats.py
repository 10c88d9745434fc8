"""What ONNX files take and give: whatever their type, layout and batch, the logits are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_cases import (
    SIDE,
    clairvoyant_description,
    clairvoyant_manifest,
    write_clairvoyant,
    write_description,
)

from pipeline.core.errors import TeacherError
from pipeline.onnx.models import import_onnx, open_model, read_onnx, sha256_of_onnx
from pipeline.views.classes import Category

CPU = torch.device("cpu")
TWO = (Category(category_id=1, name="one"), Category(category_id=2, name="two"))
IMAGES = torch.stack([torch.full((3, SIDE, SIDE), 8.0 * number) for number in (3, 1, 4, 1, 5)])

Change = Callable[[ModelProto], None]


def take(model: ModelProto, dtype: int, shape: list[Any], *nodes: onnx.NodeProto) -> None:
    """Another input, from which nodes make what the graph took."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["planes" if name == "images" else name for name in node.input]
    graph.input.pop()
    graph.input.append(helper.make_tensor_value_info("images", dtype, shape))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def give(model: ModelProto, operator: str, shape: list[int]) -> None:
    """Another output: the rows through one more operator, with a list of numbers."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), "numbers"))
    graph.node[-1].output[0] = "before"
    graph.node.append(helper.make_node(operator, ["before", "numbers"], ["rows"]))
    graph.output.pop()
    graph.output.append(onnx.ValueInfoProto(name="rows"))


def half(model: ModelProto) -> None:
    cast = helper.make_node("Cast", ["images"], ["planes"], to=TensorProto.FLOAT)
    take(model, TensorProto.FLOAT16, ["batch", 3, SIDE, SIDE], cast)


def of_bytes(model: ModelProto) -> None:
    cast = helper.make_node("Cast", ["images"], ["planes"], to=TensorProto.FLOAT)
    take(model, TensorProto.UINT8, ["batch", 3, SIDE, SIDE], cast)


def channels_last(model: ModelProto) -> None:
    transpose = helper.make_node("Transpose", ["images"], ["planes"], perm=[0, 3, 1, 2])
    take(model, TensorProto.FLOAT, ["batch", SIDE, SIDE, 3], transpose)


def fixed_batch(model: ModelProto) -> None:
    take(model, TensorProto.FLOAT, [3, 3, SIDE, SIDE], helper.make_node("Identity", ["images"], ["planes"]))


def without_batch(model: ModelProto) -> None:
    give(model, "Squeeze", [0])


def reshaped(model: ModelProto) -> None:
    give(model, "Reshape", [1, 84, 34])


def described(folder: Path, change: Change) -> Path:
    if not (folder / "c.onnx").exists():
        write_clairvoyant(clairvoyant_manifest(folder), folder / "c.onnx")
    model = onnx.load(str(folder / "c.onnx"))
    change(model)
    onnx.save(model, str(folder / f"{change.__name__}.onnx"))
    document = clairvoyant_description(f"{change.__name__}.onnx")
    return write_description(document, folder / f"{change.__name__}.yaml")


def logits(path: Path, images: torch.Tensor) -> torch.Tensor:
    model = read_onnx(path, TWO).load()
    model.to_inference(CPU)
    return model(images).edge_logits


def nothing(_model: ModelProto) -> None:
    """The graph as it is."""


@pytest.mark.parametrize("images", [1, 3, 5])
@pytest.mark.parametrize("change", [half, of_bytes, channels_last, fixed_batch, without_batch, reshaped])
def test_files_of_any_format_give_the_same_logits(tmp_path: Path, change: Change, images: int) -> None:
    expected = logits(described(tmp_path, nothing), IMAGES[:images])
    assert len(expected.unique(dim=0)) == {1: 1, 3: 3, 5: 4}[images]
    assert torch.equal(logits(described(tmp_path, change), IMAGES[:images]), expected)


def of_one_plane(model: ModelProto) -> None:
    take(model, TensorProto.FLOAT, ["batch", 1, SIDE, SIDE], helper.make_node("Relu", ["images"], ["planes"]))


def of_integers(model: ModelProto) -> None:
    model.graph.node[-1].CopyFrom(helper.make_node("Cast", ["said"], ["rows"], to=TensorProto.INT64))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


def failing(model: ModelProto) -> None:
    give(model, "Reshape", [1, 7, 34])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_one_plane, r"an input of \[N, 3, H, W\] or \[N, H, W, 3\], but got \['batch', 1, 64, 64\]"),
        (of_integers, "tensor 'rows': expected an array of floating-point, but got int64"),
        (failing, "got an error: .*cannot be reshaped to the requested shape"),
    ],
)
def test_what_cannot_be_read_fails_before_anything_is_written(
    tmp_path: Path, change: Change, message: str
) -> None:
    with pytest.raises(TeacherError, match=message) as raised:
        import_onnx(described(tmp_path, change), TWO, tmp_path / "run/teacher.safetensors")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_bytes_are_not_normalized(tmp_path: Path) -> None:
    described(tmp_path, of_bytes)
    document = clairvoyant_description("of_bytes.onnx")
    document["preprocessing"]["std"] = [255, 255, 255]
    with pytest.raises(TeacherError, match=r"std \[1, 1, 1\], for it takes bytes"):
        logits(write_description(document, tmp_path / "scaled.yaml"), IMAGES)


def test_weights_beside_the_graph_are_hashed_and_become_part_of_the_copy(tmp_path: Path) -> None:
    path = described(tmp_path, nothing)
    expected = logits(path, IMAGES)
    graph = tmp_path / "nothing.onnx"
    onnx.save(
        onnx.load(str(graph)), str(graph), save_as_external_data=True, location="w.bin", size_threshold=1024
    )
    digest = sha256_of_onnx(graph)
    import_onnx(path, TWO, tmp_path / "run/teacher.safetensors")
    data = tmp_path / "w.bin"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert sha256_of_onnx(graph) != digest
    data.unlink()
    with pytest.raises(
        TeacherError, match=r"w\.bin: expected the weights of .*nothing\.onnx, but there is no"
    ):
        import_onnx(path, TWO, tmp_path / "run/again.safetensors")
    copy = open_model(tmp_path / "run/teacher.json", TWO).load()
    copy.to_inference(CPU)
    assert torch.equal(copy(IMAGES).edge_logits, expected)
