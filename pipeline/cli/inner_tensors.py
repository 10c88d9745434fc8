"""Tensors within an ONNX graph that could be class logits or edge distributions, by their shapes alone."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

from pipeline.detector.head import EDGES
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.model import import_optional

USUAL_BINS = (8, 16, 17)
"""Of NanoDet and PicoDet, YOLOv8 and its heirs, GFL."""


def candidate_tensors(path: Path, description: OnnxDescription, input_hw: tuple[int, int]) -> Iterator[str]:
    """Name and shape of each tensor with logits for each point, of all levels or of one.

    Raises:
        TeacherError: The package onnx is not installed.
    """
    onnx = import_optional("onnx", "looking into the graph")
    model = onnx.load(str(path), load_external_data=False)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (3, *input_hw), strict=False):
        if not dim.dim_value:
            dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model).graph
    grid = description.conventions.pyramid(description.points.strides).grid(input_hw)
    classes = len(description.classes)
    edges = {EDGES * bins for bins in (description.edges.bins, *USUAL_BINS)}
    widths = {classes, *edges, *(classes + width for width in edges)}
    numbers = {points * width for points in (len(grid), *grid.lengths) for width in widths}
    for tensor in (*graph.value_info, *graph.output):
        shape = [dim.dim_value for dim in tensor.type.tensor_type.shape.dim][1:]
        if len(shape) > 1 and prod(shape) in numbers and widths & {shape[0], shape[-1]}:
            yield f"{tensor.name} {shape}"
