"""Descriptions of an ONNX teacher that differ from a given one by one usual fault."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from msgspec.structs import replace

from pipeline.detector.head import EDGES
from pipeline.onnx.description import EDGE_ORDER, ClassConfig, OnnxDescription
from pipeline.views.conventions import GFL_PREPROCESSING, Preprocessing
from pipeline.views.geometry import ResizeMode

YOLO_FILL = 114
"""Gray level around a letterbox, where the description has none."""

OTHER_FIT = "images are fitted into the input in another way"

SHOWN_CLASSES = 3

Layouts = Literal["edges_first", "bins_first"]
LAYOUTS: tuple[Layouts, ...] = ("edges_first", "bins_first")

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A description that differs in one point, and what would be wrong if it were the better one."""

    fault: str
    remedy: str
    """Keys and values to write instead."""
    description: OnnxDescription


def alternatives(description: OnnxDescription, channels: Mapping[str, int]) -> Iterator[Alternative]:
    """Every description that differs by one usual fault.

    Args:
        description: The one that is checked.
        channels: Of each tensor that it reads: how many there are.
    """
    yield from _other_points(description)
    yield from _other_classes(description)
    yield from _other_edges(description)
    yield from _other_bins(description, channels)
    yield from _other_colors(description.preprocessing, description)
    yield from _other_pixel_scales(description.preprocessing, description)
    yield from _other_fits(description.preprocessing, description)


def _other_points(description: OnnxDescription) -> Iterator[Alternative]:
    points = description.points
    offset = 0.0 if points.cell_offset else 0.5
    yield Alternative(
        fault="boxes are shifted by half a cell",
        remedy=f"points.cell_offset: {offset}",
        description=replace(description, points=replace(points, cell_offset=offset)),
    )
    order = "column_major" if points.order == "row_major" else "row_major"
    yield Alternative(
        fault="rows and columns of the points are swapped",
        remedy=f"points.order: {order}",
        description=replace(description, points=replace(points, order=order)),
    )
    one_tensor = len(description.cls.tensors.names) == len(description.edges.tensors.names) == 1
    if one_tensor and len(points.strides) > 1:
        strides = points.strides[::-1]
        yield Alternative(
            fault="levels are in the opposite order",
            remedy=f"points.strides: {list(strides)}",
            description=replace(description, points=replace(points, strides=strides)),
        )


def _other_classes(description: OnnxDescription) -> Iterator[Alternative]:
    classes = description.cls
    through = classes.activation == "none"
    yield Alternative(
        fault="class logits are already through a sigmoid" if through else "class outputs are logits",
        remedy=f"cls.activation: {'sigmoid' if through else 'none'}",
        description=replace(description, cls=replace(classes, activation="sigmoid" if through else "none")),
    )
    rows = description.classes
    for fault, other in (
        ("class channels are shifted by one", [*rows[1:], rows[0]]),
        ("class channels are shifted by one", [rows[-1], *rows[:-1]]),
        ("class channels are in the order of the names", sorted(rows, key=lambda row: row.name)),
        ("class channels are in the order of the ids", sorted(rows, key=lambda row: row.category_id)),
    ):
        if tuple(other) != rows:
            yield reordered(description, fault, tuple(other))


def reordered(description: OnnxDescription, fault: str, rows: tuple[ClassConfig, ...]) -> Alternative:
    """A description whose channels mean other classes."""
    first = ", ".join(row.name for row in rows[:SHOWN_CLASSES])
    more = ", ..." if len(rows) > SHOWN_CLASSES else ""
    return Alternative(
        fault=fault,
        remedy=f"classes in the order {first}{more}",
        description=replace(description, classes=rows),
    )


def _other_edges(description: OnnxDescription) -> Iterator[Alternative]:
    for order in permutations(EDGE_ORDER):
        if order != description.edges.order:
            yield Alternative(
                fault="edges are out of order",
                remedy=f"edges.order: [{', '.join(order)}]",
                description=replace(description, edges=replace(description.edges, order=order)),
            )


def _other_bins(description: OnnxDescription, channels: Mapping[str, int]) -> Iterator[Alternative]:
    """The channels of an edge otherwise: bins before edges, after a softmax, or more or fewer of them."""
    edges = description.edges
    layout: Layouts = "bins_first" if edges.layout == "edges_first" else "edges_first"
    yield Alternative(
        fault="bins and edges are swapped in the channels",
        remedy=f"edges.layout: {layout}",
        description=replace(description, edges=replace(edges, layout=layout)),
    )
    for layout in LAYOUTS:
        yield Alternative(
            fault="edges are already through a softmax",
            remedy=f"edges.activation: softmax, layout: {layout}",
            description=replace(description, edges=replace(edges, activation="softmax", layout=layout)),
        )
    start = edges.tensors.columns[0] if edges.tensors.columns else 0
    end = min(channels[name] for name in edges.tensors.names)
    bins = (end - start) // EDGES
    if bins > 1 and bins != edges.bins and EDGES * bins == end - start:
        tensors = replace(edges.tensors, columns=(start, end))
        yield Alternative(
            fault="edges have another number of bins",
            remedy=f"edges.bins: {bins}, tensors.columns: [{start}, {end}]",
            description=replace(description, edges=replace(edges, bins=bins, tensors=tensors)),
        )


def _other_colors(pixels: Preprocessing, description: OnnxDescription) -> Iterator[Alternative]:
    other = replace(pixels, color="BGR" if pixels.color == "RGB" else "RGB")
    swapped = replace(other, mean=pixels.mean[::-1], std=pixels.std[::-1])
    yield Alternative(
        fault="channels are swapped",
        remedy=f"preprocessing.color: {other.color}",
        description=replace(description, preprocessing=other),
    )
    if swapped != other:
        yield Alternative(
            fault="channels are swapped, and mean and std with them",
            remedy=f"preprocessing.color: {other.color}, mean: {list(swapped.mean)}, "
            f"std: {list(swapped.std)}",
            description=replace(description, preprocessing=swapped),
        )


def _other_pixel_scales(pixels: Preprocessing, description: OnnxDescription) -> Iterator[Alternative]:
    """Every usual way to scale gray levels of 0-255."""
    mean, std = GFL_PREPROCESSING.mean, GFL_PREPROCESSING.std
    if pixels.color == "BGR":
        mean, std = (mean[2], mean[1], mean[0]), (std[2], std[1], std[0])
    scales: dict[str, tuple[Triple, Triple]] = {
        "0 to 255": ((0.0,) * 3, (1.0,) * 3),
        "0 to 1": ((0.0,) * 3, (255.0,) * 3),
        "-1 to 1": ((127.5,) * 3, (127.5,) * 3),
        "ImageNet's mean and std": (mean, std),
        "255 times mean and std": (_times(pixels.mean, 255), _times(pixels.std, 255)),
        "mean and std over 255": (_times(pixels.mean, 1 / 255), _times(pixels.std, 1 / 255)),
    }
    for name, (mean, std) in scales.items():
        if (mean, std) != (pixels.mean, pixels.std):
            yield Alternative(
                fault=f"pixels are scaled otherwise ({name})",
                remedy=f"preprocessing.mean: {list(mean)}, std: {list(std)}",
                description=replace(description, preprocessing=replace(pixels, mean=mean, std=std)),
            )


def _times(values: Triple, factor: float) -> Triple:
    first, second, third = (value * factor for value in values)
    return first, second, third


def _other_fits(pixels: Preprocessing, description: OnnxDescription) -> Iterator[Alternative]:
    if description.input.size is None:
        return
    fits: tuple[ResizeMode, ...] = ("stretch", "letterbox", "letterbox_centred")
    for fit in fits:
        if fit != pixels.fit:
            fill = None if fit == "stretch" else pixels.fill or YOLO_FILL
            yield Alternative(
                fault=OTHER_FIT,
                remedy=f"preprocessing.fit: {fit}, fill: {'null' if fill is None else fill}",
                description=replace(description, preprocessing=replace(pixels, fit=fit, fill=fill)),
            )
