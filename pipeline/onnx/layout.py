"""From the tensors of an ONNX file, in whatever layout, to this project's raw outputs."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pipeline.core.errors import TeacherError
from pipeline.detector.head import EDGES, RawOutputs
from pipeline.onnx.description import EDGE_ORDER, EdgesConfig, OnnxDescription, PointsConfig, TensorsConfig
from pipeline.views.pyramid import Grid, Size

PROBABILITY_EPSILON = 1e-7
"""Probabilities are clamped to this far from 0 and 1 before the sigmoid is undone."""

SUM_TOLERANCE = 0.01
"""Probabilities of an edge sum to 1 within this, in half precision too."""


def read_outputs(
    description: OnnxDescription, columns: Sequence[int], tensors: Mapping[str, Tensor], image_hw: Size
) -> RawOutputs:
    """Raw outputs, levels by ascending stride, from the tensors of ``image_hw`` px images.

    ``columns`` are the channels of the dataset's labels. A ``TeacherError`` names what is not as described.
    """
    points, classes, edges = description.points, description.cls, description.edges
    grid = description.conventions.pyramid(points.strides).grid(image_hw)
    cls_logits = _levels(tensors, classes.tensors, points, grid, len(description.classes))
    edge_logits = _levels(tensors, edges.tensors, points, grid, EDGES * edges.bins)
    ascending = sorted(range(len(points.strides)), key=points.strides.__getitem__)
    chosen = torch.cat([cls_logits[level] for level in ascending], dim=1)[..., list(columns)]
    distributions = torch.cat([edge_logits[level] for level in ascending], dim=1)
    return RawOutputs(
        cls_logits=_undo_sigmoid(chosen) if classes.activation == "sigmoid" else chosen,
        edge_logits=_edge_logits(distributions, edges),
        sizes=tuple(grid.sizes[level] for level in ascending),
    )


def _levels(
    tensors: Mapping[str, Tensor], where: TensorsConfig, points: PointsConfig, grid: Grid, width: int
) -> list[Tensor]:
    """``Tensor[B, H * W, width]`` of every level, in the file's order of levels, points row-major."""
    rows = [_rows(tensors[name], where, width) for name in where.names]
    expected = [len(grid)] if len(rows) == 1 else grid.lengths
    for name, given, length in zip(where.names, rows, expected, strict=True):
        if tuple(given.shape[1:]) != (length, width):
            raise TeacherError(
                f"tensor {name!r}: expected {length} points of {width} channels for strides "
                f"{list(points.strides)}, but got {given.shape[1]} of {given.shape[2]} (shape "
                f"{tuple(tensors[name].shape)}); compare input.size, points.strides, channels and columns"
            )
    levels = list(torch.split(rows[0], grid.lengths, dim=1) if len(rows) == 1 else rows)
    if points.order == "row_major":
        return levels
    turned = (level.reshape(len(level), w, h, -1) for level, (h, w) in zip(levels, grid.sizes, strict=True))
    return [level.transpose(1, 2).flatten(1, 2) for level in turned]


def _rows(tensor: Tensor, where: TensorsConfig, width: int) -> Tensor:
    """``Tensor[B, C, ...]`` or ``Tensor[B, ..., C]`` to ``Tensor[B, points, columns]``."""
    first, axis = where.channels == "first", 1 if where.channels == "first" else 2
    # Channels may stand in two axes, such as [B, 4, bins, points], if no columns are cut out of them.
    if where.columns is None and tensor.ndim == 4 and tensor.shape[axis] * tensor.shape[axis + 1] == width:
        tensor = tensor.flatten(axis, axis + 1)
    rows = (tensor.movedim(1, -1) if first else tensor).flatten(1, -2)
    return rows if where.columns is None else rows[..., slice(*where.columns)]


def _edge_logits(channels: Tensor, edges: EdgesConfig) -> Tensor:
    """``Tensor[B, N, 4 * bins]`` in the file's order to logits ``Tensor[B, N, 4, bins]`` in ours."""
    if edges.layout == "bins_first":
        values = channels.reshape(*channels.shape[:-1], edges.bins, EDGES).mT
    else:
        values = channels.reshape(*channels.shape[:-1], EDGES, edges.bins)
    values = values[:, :, [edges.order.index(edge) for edge in EDGE_ORDER]]
    least, greatest = (float(value) for value in values.aminmax())
    off = float((values.sum(dim=-1) - 1).abs().max())
    sums_to_one = 0 <= least <= greatest <= 1 + SUM_TOLERANCE and off < SUM_TOLERANCE
    if sums_to_one != (edges.activation == "softmax"):
        raise TeacherError(
            f"edges.activation: expected {'softmax' if sums_to_one else 'none'!r}, for the bins of an edge "
            f"are from {least:.3g} to {greatest:.3g}, and their sum is off 1 by up to {off:.3g}"
        )
    # Logits are known but for a constant, which no softmax sees, whatever its temperature.
    return values.clamp(min=PROBABILITY_EPSILON).log() if sums_to_one else values


def _undo_sigmoid(probabilities: Tensor) -> Tensor:
    least, greatest = (float(value) for value in probabilities.aminmax())
    if least < 0 or greatest > 1:
        raise TeacherError(
            f"cls.activation: expected 'none', for the class outputs are from {least:.3g} to {greatest:.3g}, "
            "which no sigmoid gives"
        )
    return torch.logit(probabilities, eps=PROBABILITY_EPSILON)
