"""Layouts: the same logits, laid out in whatever way, are read as the same."""

from typing import Any

import pytest
import torch
from msgspec.structs import replace
from onnx_cases import BINS, SIDE, clairvoyant_description
from torch import Tensor

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.layout import read_outputs

IMAGES, STRIDES = 2, (8, 16, 32)
SIDES = [SIDE // stride for stride in STRIDES]
HW = (SIDE, SIDE)


def level_maps(channels: int, seed: int) -> list[Tensor]:
    """``[N, C, H, W]`` of every level; as a network without a transposition would give it."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(IMAGES, channels, side, side, generator=generator) for side in SIDES]


CLS, EDGES = level_maps(2, 0), level_maps(4 * BINS, 1)


def described(strides: tuple[int, ...] = STRIDES, **changes: Any) -> OnnxDescription:
    document = clairvoyant_description("a.onnx")
    document["points"] |= {"strides": list(strides), "order": changes.get("points", "row_major")}
    for part, names in (("cls", changes.get("cls", ["c"])), ("edges", changes.get("edges", ["e"]))):
        document[part]["tensors"] = {
            "names": names,
            "channels": changes.get("channels", "last"),
            "columns": changes.get(f"{part}_columns"),
        }
    document["cls"]["activation"] = changes.get("activation", "none")
    document["edges"]["order"] = changes.get("order", ["l", "t", "r", "b"])
    return structure(OnnxDescription, document, "here")


def read(
    description: OnnxDescription, tensors: dict[str, Tensor], columns: tuple[int, ...] = (0, 1)
) -> RawOutputs:
    return read_outputs(description, columns, tensors, HW)


def rows(maps: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2).mT for level in maps], dim=1)


def check_equal(layout: OnnxDescription, tensors: dict[str, Tensor]) -> None:
    raw = read(layout, tensors)
    torch.testing.assert_close(raw.cls_logits, rows(CLS))
    torch.testing.assert_close(raw.edge_logits, rows(EDGES).reshape(IMAGES, -1, 4, BINS))
    assert raw.sizes == tuple((side, side) for side in SIDES)


def test_one_tensor_with_all_points_and_column_ranges() -> None:
    layout = described(cls=["x"], edges=["x"], cls_columns=[0, 2], edges_columns=[2, 34])
    check_equal(layout, {"x": torch.cat([rows(CLS), rows(EDGES)], dim=2)})


def test_one_tensor_with_channels_first() -> None:
    layout = described(channels="first", cls=["x"], edges=["x"], cls_columns=[32, 34], edges_columns=[0, 32])
    check_equal(layout, {"x": torch.cat([rows(EDGES), rows(CLS)], dim=2).mT})


def test_one_tensor_a_level_with_channels_first() -> None:
    names = ["0", "1", "2"]
    layout = described(channels="first", cls=[f"c{n}" for n in names], edges=[f"e{n}" for n in names])
    tensors = {f"c{n}": level for n, level in zip(names, CLS, strict=True)}
    check_equal(layout, tensors | {f"e{n}": level for n, level in zip(names, EDGES, strict=True)})


def test_levels_from_coarse_to_fine() -> None:
    check_equal(described(STRIDES[::-1]), {"c": rows(CLS[::-1]), "e": rows(EDGES[::-1])})


def test_points_column_after_column() -> None:
    turned = {"c": rows([level.mT for level in CLS]), "e": rows([level.mT for level in EDGES])}
    check_equal(described(points="column_major"), turned)


def test_edges_in_another_order() -> None:
    edges = rows(EDGES).reshape(IMAGES, -1, 4, BINS)[:, :, [1, 0, 3, 2]].flatten(2)
    check_equal(described(order=["t", "l", "b", "r"]), {"c": rows(CLS), "e": edges})


def test_channels_in_two_axes() -> None:
    edges = rows(EDGES)
    split = edges.reshape(IMAGES, -1, 4, BINS)
    check_equal(described(), {"c": rows(CLS), "e": split})
    check_equal(described(channels="first"), {"c": rows(CLS).mT, "e": split.permute(0, 2, 3, 1)})
    by_bins = replace_edges(described(), layout="bins_first")
    check_equal(by_bins, {"c": rows(CLS), "e": split.transpose(-1, -2)})
    check_equal(by_bins, {"c": rows(CLS), "e": split.transpose(-1, -2).flatten(2)})


def test_a_softmax_is_undone_but_for_a_constant_and_never_assumed() -> None:
    softened = rows(EDGES).reshape(IMAGES, -1, 4, BINS).softmax(-1).flatten(2)
    raw = read(replace_edges(described(), activation="softmax"), {"c": rows(CLS), "e": softened})
    expected = rows(EDGES).reshape(IMAGES, -1, 4, BINS)
    for temperature in (1, 10):
        torch.testing.assert_close(
            (raw.edge_logits / temperature).softmax(-1), (expected / temperature).softmax(-1)
        )
    with pytest.raises(TeacherError, match=r"edges\.activation: expected 'softmax', for the bins of an edge"):
        read(described(), {"c": rows(CLS), "e": softened})
    with pytest.raises(TeacherError, match=r"edges\.activation: expected 'none', for the bins of an edge"):
        read(replace_edges(described(), activation="softmax"), {"c": rows(CLS), "e": rows(EDGES)})


def replace_edges(description: OnnxDescription, /, **changes: Any) -> OnnxDescription:
    return replace(description, edges=replace(description.edges, **changes))


def test_a_sigmoid_is_undone() -> None:
    layout = described(activation="sigmoid")
    raw = read(layout, {"c": rows(CLS).sigmoid(), "e": rows(EDGES)})
    torch.testing.assert_close(raw.cls_logits, rows(CLS), rtol=1e-4, atol=1e-4)


def test_the_datasets_classes_are_picked_in_the_order_of_their_labels() -> None:
    raw = read(described(), {"c": rows(CLS), "e": rows(EDGES)}, columns=(1,))
    torch.testing.assert_close(raw.cls_logits, rows(CLS)[..., 1:])


@pytest.mark.parametrize("shape", [(IMAGES, 80, 2), (IMAGES, 84, 3), (IMAGES, 2, 84)])
def test_a_tensor_of_another_shape_is_refused_with_its_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match=r"tensor 'c': expected 84 points of 2 channels for strides"):
        read(described(), {"c": torch.zeros(shape), "e": rows(EDGES)})
