"""Descriptions of an ONNX teacher that differ from a given one by one usual fault."""

from collections.abc import Iterator, Mapping
from itertools import chain, permutations
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pipeline.detector.head import EDGES
from pipeline.onnx.description import EDGE_ORDER, ClassConfig, OnnxDescription
from pipeline.views.conventions import GFL_PREPROCESSING

YOLO_FILL = 114
"""Gray level around a letterbox, where the description has none."""

OTHER_FIT = "images are fitted into the input in another way"

SHOWN_CLASSES = 3

T = TypeVar("T", bound=Struct)
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
        yield Alternative(fault, remedy, _with_values(description, values))
    rows = description.classes
    for fault, order in (
        ("class channels are shifted by one", [*rows[1:], rows[0]]),
        ("class channels are shifted by one", [rows[-1], *rows[:-1]]),
        ("class channels are in the order of the names", sorted(rows, key=lambda row: row.name)),
        ("class channels are in the order of the ids", sorted(rows, key=lambda row: row.category_id)),
    ):
        if tuple(order) != rows:
            yield reordered(description, fault, tuple(order))


def reordered(description: OnnxDescription, fault: str, rows: tuple[ClassConfig, ...]) -> Alternative:
    """A description whose channels mean other classes."""
    first = ", ".join(row.name for row in rows[:SHOWN_CLASSES])
    more = ", ..." if len(rows) > SHOWN_CLASSES else ""
    return Alternative(fault, f"classes in the order {first}{more}", replace(description, classes=rows))


def _with_values(section: T, values: Mapping[str, Any]) -> T:
    """A copy with other values by dotted key, which are checked together."""
    inner: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        inner.setdefault(head, {})[rest] = value
    return replace(
        section,
        **{
            head: below[""] if "" in below else _with_values(getattr(section, head), below)
            for head, below in inner.items()
        },
    )


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
