"""Layouts: the same logits, laid out in whatever way, are read as the same."""

from typing import Any

import pytest
import torch
from onnx_cases import BINS, SIDE, clairvoyant_description
from torch import Tensor

from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.layout import read_outputs

IMAGES, STRIDES = 2, (8, 16, 32)
SIDES = [SIDE // stride for stride in STRIDES]


def level_maps(channels: int, seed: int) -> list[Tensor]:
    """``[N, C, H, W]`` of every level; as a network without a transposition would give it."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(IMAGES, channels, side, side, generator=generator) for side in SIDES]


def rows(maps: list[Tensor]) -> Tensor:
    return torch.cat([level.flatten(2).mT for level in maps], dim=1)


CLS_MAPS, EDGE_MAPS = level_maps(2, 0), level_maps(4 * BINS, 1)
CLS, EDGES = rows(CLS_MAPS), rows(EDGE_MAPS)
BY_EDGE = EDGES.reshape(IMAGES, -1, 4, BINS)
ONE_TENSOR = {"cls": ["x"], "edges": ["x"]}


def described(**changes: Any) -> OnnxDescription:
    document = clairvoyant_description("a.onnx")
    document["points"] |= {name: changes[name] for name in ("strides", "order") if name in changes}
    for part, names in (("cls", changes.get("cls", ["c"])), ("edges", changes.get("edges", ["e"]))):
        document[part]["tensors"] = {
            "names": names,
            "channels": changes.get("channels", "last"),
            "columns": changes.get(f"{part}_columns"),
        }
    document["cls"]["activation"] = changes.get("cls_activation", "none")
    document["edges"] |= {
        "order": changes.get("edge_order", ["l", "t", "r", "b"]),
        "layout": changes.get("layout", "edges_first"),
        "activation": changes.get("edge_activation", "none"),
    }
    return structure(OnnxDescription, document, "here")


def read(
    description: OnnxDescription, tensors: dict[str, Tensor], columns: tuple[int, ...] = (0, 1)
) -> RawOutputs:
    return read_outputs(description, columns, tensors, (SIDE, SIDE))


@pytest.mark.parametrize(
    ("layout", "tensors"),
    [
        pytest.param(
            {**ONE_TENSOR, "cls_columns": [0, 2], "edges_columns": [2, 34]},
            {"x": torch.cat([CLS, EDGES], dim=2)},
            id="one tensor with column ranges",
        ),
        pytest.param(
            {**ONE_TENSOR, "channels": "first", "cls_columns": [32, 34], "edges_columns": [0, 32]},
            {"x": torch.cat([EDGES, CLS], dim=2).mT},
            id="one tensor with channels first",
        ),
        pytest.param(
            {"channels": "first", "cls": ["c0", "c1", "c2"], "edges": ["e0", "e1", "e2"]},
            {f"{name}{i}": maps[i] for name, maps in (("c", CLS_MAPS), ("e", EDGE_MAPS)) for i in range(3)},
            id="one tensor a level with channels first",
        ),
        pytest.param(
            {"strides": STRIDES[::-1]},
            {"c": rows(CLS_MAPS[::-1]), "e": rows(EDGE_MAPS[::-1])},
            id="levels from coarse to fine",
        ),
        pytest.param(
            {"order": "column_major"},
            {"c": rows([level.mT for level in CLS_MAPS]), "e": rows([level.mT for level in EDGE_MAPS])},
            id="points column after column",
        ),
        pytest.param(
            {"edge_order": ["t", "l", "b", "r"]},
            {"c": CLS, "e": BY_EDGE[:, :, [1, 0, 3, 2]].flatten(2)},
            id="edges in another order",
        ),
        pytest.param({}, {"c": CLS, "e": BY_EDGE}, id="channels in two axes"),
        pytest.param(
            {"channels": "first"}, {"c": CLS.mT, "e": BY_EDGE.permute(0, 2, 3, 1)}, id="two axes first"
        ),
        pytest.param({"layout": "bins_first"}, {"c": CLS, "e": BY_EDGE.mT}, id="bins first in two axes"),
        pytest.param({"layout": "bins_first"}, {"c": CLS, "e": BY_EDGE.mT.flatten(2)}, id="bins first"),
        pytest.param({"cls_activation": "sigmoid"}, {"c": CLS.sigmoid(), "e": EDGES}, id="sigmoid"),
    ],
)
def test_logits_in_any_layout_are_read_as_the_same(
    layout: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    raw = read(described(**layout), tensors)
    torch.testing.assert_close(raw.cls_logits, CLS, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(raw.edge_logits, BY_EDGE)
    assert raw.sizes == tuple((side, side) for side in SIDES)
    one_class = read(described(**layout), tensors, columns=(1,))
    torch.testing.assert_close(one_class.cls_logits, CLS[..., 1:], rtol=1e-4, atol=1e-4)


def test_a_softmax_is_undone_but_for_a_constant_and_never_assumed() -> None:
    softened, layout = {"c": CLS, "e": BY_EDGE.softmax(-1).flatten(2)}, described(edge_activation="softmax")
    raw = read(layout, softened)
    for temperature in (1, 10):
        torch.testing.assert_close(
            (raw.edge_logits / temperature).softmax(-1), (BY_EDGE / temperature).softmax(-1)
        )
    with pytest.raises(TeacherError, match=r"edges\.activation: expected 'softmax', for the bins of an edge"):
        read(described(), softened)
    with pytest.raises(TeacherError, match=r"edges\.activation: expected 'none', for the bins of an edge"):
        read(layout, {"c": CLS, "e": EDGES})


@pytest.mark.parametrize("shape", [(IMAGES, 80, 2), (IMAGES, 84, 3), (IMAGES, 2, 84)])
def test_a_tensor_of_another_shape_is_refused_with_its_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(TeacherError, match=r"tensor 'c': expected 84 points of 2 channels for strides"):
        read(described(), {"c": torch.zeros(shape), "e": EDGES})
