"""Descriptions of an ONNX teacher that differ from a given one by one usual fault."""

from collections.abc import Iterator, Sequence
from itertools import chain, permutations
from typing import Any, NamedTuple

from msgspec.structs import replace
from torch import Tensor

from pipeline.cli.options import override
from pipeline.core.config import structure
from pipeline.detector.head import EDGES
from pipeline.onnx.description import EDGE_ORDER, ClassConfig, OnnxDescription
from pipeline.views.conventions import GFL_PREPROCESSING

YOLO_FILL = 114
"""Gray level around a letterbox, where the description has none."""

OTHER_FIT = "images are fitted into the input in another way"

SHOWN_CLASSES = 3

Change = tuple[str, dict[str, Any]]
"""A fault, and what stands by dotted key in a description without it."""


class Alternative(NamedTuple):
    """A description that differs in one point, and what would be wrong if it were the better one."""

    fault: str
    remedy: str
    """Keys and values to write instead."""
    description: OnnxDescription


def alternatives(description: OnnxDescription, channels: int) -> Iterator[Alternative]:
    """Every description that differs by one usual fault; ``channels`` have the tensors of the edges."""
    changes = _outputs(description), _edges(description, channels), _pixels(description)
    for fault, values in chain(*changes):
        remedy = ", ".join(
            f"{key.partition('.')[2] if number else key}: {_as_yaml(value)}"
            for number, (key, value) in enumerate(values.items())
        )
        changed = structure(OnnxDescription, override(description.to_json(), values), description.name)
        yield Alternative(fault, remedy, changed)
    rows = description.classes
    yield from _reordered(description, "class channels are shifted by one", [*rows[1:], rows[0]])
    yield from _reordered(description, "class channels are shifted by one", [rows[-1], *rows[:-1]])
    by_name = sorted(rows, key=lambda row: row.name)
    yield from _reordered(description, "class channels are in the order of the names", by_name)
    by_id = sorted(rows, key=lambda row: row.category_id)
    yield from _reordered(description, "class channels are in the order of the ids", by_id)


def in_recognized_order(
    description: OnnxDescription, columns: Sequence[int], confusion: Tensor
) -> Iterator[Alternative]:
    """Classes in the order in which the objects are recognized, if that is another one.

    ``columns`` are the channels of the dataset's labels; the most frequent confusions come first.
    """
    channels = range(len(description.classes))
    pairs = [divmod(pair, len(columns)) for pair in confusion.flatten().argsort(descending=True).tolist()]
    seen = [(columns[guess], columns[label]) for label, guess in pairs if confusion[label, guess]]
    meant: dict[int, int] = {}
    for channel, other in [*seen, *zip(channels, channels, strict=True)]:
        if channel not in meant and other not in meant.values():
            meant[channel] = other
    left = iter(sorted(set(channels) - set(meant.values())))
    rows = [description.classes[meant[channel] if channel in meant else next(left)] for channel in channels]
    yield from _reordered(description, "classes are confused with one another", rows)


def _reordered(
    description: OnnxDescription, fault: str, rows: Sequence[ClassConfig]
) -> Iterator[Alternative]:
    """A description whose channels mean other classes, if they do."""
    if tuple(rows) != description.classes:
        first = ", ".join(row.name for row in rows[:SHOWN_CLASSES])
        more = ", ..." if len(rows) > SHOWN_CLASSES else ""
        remedy = f"classes in the order {first}{more}"
        yield Alternative(fault, remedy, replace(description, classes=tuple(rows)))


def _as_yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _outputs(description: OnnxDescription) -> Iterator[Change]:
    """The points, and what was done to the classes."""
    points = description.points
    yield "boxes are shifted by half a cell", {"points.cell_offset": 0.0 if points.cell_offset else 0.5}
    order = "column_major" if points.order == "row_major" else "row_major"
    yield "rows and columns of the points are swapped", {"points.order": order}
    names = len(description.cls.tensors.names), len(description.edges.tensors.names)
    if names == (1, 1) and len(points.strides) > 1:
        yield "levels are in the opposite order", {"points.strides": points.strides[::-1]}
    if description.cls.activation == "none":
        yield "class logits are already through a sigmoid", {"cls.activation": "sigmoid"}
    else:
        yield "class outputs are logits", {"cls.activation": "none"}


def _edges(description: OnnxDescription, channels: int) -> Iterator[Change]:
    """The order of the edges; their channels with bins first, after a softmax, or with other bins."""
    edges, columns = description.edges, description.edges.tensors.columns
    values: dict[str, Any]
    for order in permutations(EDGE_ORDER):
        if order != edges.order:
            yield "edges are out of order", {"edges.order": order}
    layout = "bins_first" if edges.layout == "edges_first" else "edges_first"
    yield "bins and edges are swapped in the channels", {"edges.layout": layout}
    for layout in ("edges_first", "bins_first"):
        values = {"edges.activation": "softmax", "edges.layout": layout}
        yield "edges are already through a softmax", values
    start, end = columns[0] if columns else 0, channels
    bins = (end - start) // EDGES
    if bins > 1 and bins != edges.bins and EDGES * bins == end - start:
        values = {"edges.bins": bins, "edges.tensors.columns": (start, end)}
        yield "edges have another number of bins", values


def _pixels(description: OnnxDescription) -> Iterator[Change]:
    """The order of the colors, every usual way to scale gray levels of 0-255, and the fit."""
    pixels = description.preprocessing
    color = "BGR" if pixels.color == "RGB" else "RGB"
    swapped = {"preprocessing.color": color}
    yield "channels are swapped", swapped
    given, turned = (pixels.mean, pixels.std), (pixels.mean[::-1], pixels.std[::-1])
    if turned != given:
        values = {**swapped, "preprocessing.mean": turned[0], "preprocessing.std": turned[1]}
        yield "channels are swapped, and mean and std with them", values
    turn = -1 if pixels.color == "BGR" else 1
    scales: dict[str, tuple[tuple[float, ...], ...]] = {
        "0 to 255": ((0.0,) * 3, (1.0,) * 3),
        "0 to 1": ((0.0,) * 3, (255.0,) * 3),
        "-1 to 1": ((127.5,) * 3, (127.5,) * 3),
        "ImageNet's mean and std": (GFL_PREPROCESSING.mean[::turn], GFL_PREPROCESSING.std[::turn]),
        "255 times mean and std": tuple(tuple(value * 255 for value in row) for row in given),
        "mean and std over 255": tuple(tuple(value * (1 / 255) for value in row) for row in given),
    }
    for name, (mean, std) in scales.items():
        if (mean, std) != given:
            values = {"preprocessing.mean": mean, "preprocessing.std": std}
            yield f"pixels are scaled otherwise ({name})", values
    for fit in ("stretch", "letterbox", "letterbox_centred"):
        if description.input.size is not None and fit != pixels.fit:
            fill = None if fit == "stretch" else pixels.fill or YOLO_FILL
            yield OTHER_FIT, {"preprocessing.fit": fit, "preprocessing.fill": fill}
