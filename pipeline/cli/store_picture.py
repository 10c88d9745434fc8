"""A stored view as a picture: the view, its regions level by level, and the teacher's edge distributions."""

import io
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from pipeline.cli.store_text import counted
from pipeline.cli.store_view import ShownObject, ShownView, choose_objects
from pipeline.report.pictures import LABEL_FONT, LABEL_HEIGHT, PALETTE, Mark, Picture, place_marks
from pipeline.report.style import EDGE_NAMES, INK, MUTED, STYLE, TEACHER, TRUTH, VALUABLE
from pipeline.views.types import NOT_MAIN

POINTS_PER_INCH = 72
PNG_DPI = 110

WIDTH = 14.0
VIEW_WIDTH, VIEW_HEIGHT = 7.2, 7.2
LEVELS_WIDTH, MOST_LEVELS_HEIGHT = 6.2, 9.0
OBJECT_HEIGHT = 1.75
HEAD_HEIGHT, TITLE_HEIGHT, AXIS_HEIGHT = 1.1, 0.5, 0.4
"""Inches. The view fits into ``VIEW_WIDTH`` x ``VIEW_HEIGHT``; the head counts the legend in."""

PALE = 0.62
"""Opacity of the white over a picture below points."""

FULL_WEIGHT = 0.5
"""Weight from which on a cell is fully colored: the region ends at ATSS's threshold, mostly below it."""

LOWEST_OPACITY, OPACITY_SPREAD = 0.15, 0.75

MOST_LABELS = 12
"""With more boxes than this, only those of the shown objects are labelled."""

SHOWN_PROBABILITY = 0.01
"""A bin of less probability on every edge may be left out at the right."""

SIZES: Final[Any] = {
    "font.size": 9.5,
    "axes.titlesize": 10.0,
    "axes.titlepad": 6.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.1,
}
"""What differs from the page's charts: all is on one sheet."""

HALO: list[AbstractPathEffect] = [withStroke(linewidth=3.0, foreground="white")]
"""Keeps lines visible on any picture."""


def draw_view(view: ShownView) -> bytes:
    """The picture as a PNG file."""
    objects = choose_objects(view)
    with mpl.rc_context({**STYLE, **SIZES}):
        figure = _draw(view, objects)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return content.getvalue()


def _draw(view: ShownView, objects: Sequence[ShownObject]) -> Figure:
    """The sheet: the view with its levels beside it, and below a row for every shown object."""
    if not len(view.stored.view.points):
        return _draw_empty(view)
    columns = _level_columns(view)
    heights = [max(_view_height(view), _levels_height(view, columns))]
    heights += [OBJECT_HEIGHT * len(objects) + AXIS_HEIGHT] if objects else []
    figure = Figure(figsize=(WIDTH, HEAD_HEIGHT + sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    left, right = parts[0].subfigures(1, 2, width_ratios=(VIEW_WIDTH, LEVELS_WIDTH))
    _draw_view(left, view, objects)
    _draw_levels(right, view, columns)
    if objects:
        _draw_objects(parts[1], view, objects)
    figure.suptitle(_title(view), x=0.01, ha="left", fontsize=13, color=INK)
    figure.legend(handles=_legend(objects), loc="outside lower left", ncols=4, frameon=False)
    return figure


def _draw_empty(view: ShownView) -> Figure:
    """A view of which nothing is kept: there is only its picture."""
    figure = Figure(figsize=(VIEW_WIDTH, _view_height(view) + TITLE_HEIGHT), layout="constrained")
    (part,) = figure.subfigures(1, 1, squeeze=False).ravel()
    _draw_view(part, view, [])
    figure.suptitle(_title(view), x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _view_scale(view: ShownView) -> float:
    """Inches of a pixel of the large picture."""
    height, width = view.size_hw
    return min(VIEW_WIDTH / width, VIEW_HEIGHT / height)


def _levels_height(view: ShownView, columns: int) -> float:
    """Inches of all levels in so many columns."""
    height, width = view.size_hw
    rows = -(-len(view.strides) // columns)
    return rows * (LEVELS_WIDTH / columns * height / width + TITLE_HEIGHT)


def _level_columns(view: ShownView) -> int:
    """Two columns of levels, or three where two would be higher than a sheet."""
    return 2 if _levels_height(view, 2) <= MOST_LEVELS_HEIGHT else 3


def _view_height(view: ShownView) -> float:
    """Inches of the large picture."""
    return view.size_hw[0] * _view_scale(view) + TITLE_HEIGHT


def _title(view: ShownView) -> str:
    planned = view.stored.view
    (height, width), points = view.size_hw, planned.points
    flipped = ", flipped" if planned.geometry.flip else ""
    kept = (
        f"{counted(len(points), 'kept point')}: {points.main_count:,} in the main region, "
        f"{np.count_nonzero(points.valuable_weight):,} in the valuable region"
        if len(points)
        else "no point is kept"
    )
    boxes = "1 box" if len(planned.labels) == 1 else f"{len(planned.labels)} boxes"
    head = f"image {planned.key.image_id}, view {planned.key.view}{flipped}"
    return f"{head}: {width} x {height} px, {boxes}; {kept}"


def _legend(objects: Sequence[ShownObject]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=MUTED, linewidth=1.8, label="ground truth, a color an object"),
        Line2D([], [], color=MUTED, marker="o", linestyle="", markersize=5, label="main-region point"),
    ]
    handles += [
        Patch(facecolor=VALUABLE, alpha=_opacity(weight), label=f"valuable, weight {text}")
        for weight, text in ((0.1, "0.1"), (0.3, "0.3"), (0.5, "0.5 and more"))
    ]
    if objects:
        handles += [
            Line2D(
                [],
                [],
                color=TEACHER,
                linestyle="--",
                marker="+",
                markersize=9,
                label="teacher: point, box, mean",
            ),
            Line2D([], [], color=TRUTH, linewidth=1.6, label="true distance"),
        ]
    return handles


def _draw_view(part: SubFigure, view: ShownView, objects: Sequence[ShownObject]) -> None:
    axes = part.subplots()
    _show_pixels(axes, view)
    letters = {shown.box: _letter(place) for place, shown in enumerate(objects)}
    for box, corners in enumerate(view.stored.view.boxes_xyxy.tolist()):
        axes.add_patch(_outline(corners, box_color(box), "-", 1.8))
    for shown in objects:
        _mark_teacher(axes, shown)
    points_per_px = _view_scale(view) * POINTS_PER_INCH
    for mark in _labels(view, letters, points_per_px):
        _draw_label(axes, mark, points_per_px)
    axes.set_title("ground truth, and what the teacher says" if objects else "the view")


def _letter(place: int) -> str:
    return chr(ord("A") + place)


def _labels(view: ShownView, letters: dict[int, str], points_per_px: float) -> list[Mark]:
    """Labels of the boxes where they cover no other one: the shown objects come first."""
    planned = view.stored.view
    height, width = view.size_hw
    picture = Picture(uri="", width=width * points_per_px, height=height * points_per_px, scale=points_per_px)
    others = [box for box in range(len(planned.labels)) if box not in letters]
    labelled = [*letters, *(others if len(planned.labels) <= MOST_LABELS else [])]
    return place_marks(
        [_xywh(planned.boxes_xyxy[box]) for box in labelled],
        [box_color(box) for box in labelled],
        [f"{letters.get(box, '')} {view.class_name(box)}".strip() for box in labelled],
        picture,
    )


def _xywh(corners: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = corners.tolist()
    return x1, y1, x2 - x1, y2 - y1


def _draw_label(axes: Axes, mark: Mark, points_per_px: float) -> None:
    if mark.tag is None:
        return
    left, top, width = (value / points_per_px for value in mark.tag)
    height = LABEL_HEIGHT / points_per_px
    axes.add_patch(Rectangle((left, top), width, height, facecolor=mark.color, linewidth=0, zorder=5))
    axes.text(
        left + width / 2,
        top + height / 2,
        mark.text,
        color="white",
        fontsize=LABEL_FONT - 1,
        ha="center",
        va="center_baseline",
        zorder=6,
    )


def _mark_teacher(axes: Axes, shown: ShownObject) -> None:
    """The box that the teacher's distributions decode to, and the point where it says so."""
    box = _outline(shown.teacher_xyxy.tolist(), TEACHER, (0, (4, 2)), 1.6)
    box.set_path_effects(HALO)
    axes.add_patch(box)
    x, y = shown.point_xy.tolist()
    axes.plot(x, y, marker="+", color=TEACHER, markersize=9, markeredgewidth=1.8, path_effects=HALO, zorder=4)


def _outline(
    corners: Sequence[float], color: str, dash: str | tuple[float, Sequence[float]], width: float
) -> Rectangle:
    x1, y1, x2, y2 = corners
    return Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linestyle=dash, linewidth=width, zorder=3
    )


def _show_pixels(axes: Axes, view: ShownView) -> None:
    """The picture, pixel centers at whole numbers + 1/2 as boxes count them."""
    height, width = view.size_hw
    axes.imshow(view.pixels, extent=(0, width, height, 0), interpolation="bilinear")
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_anchor("NW")
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _draw_levels(part: SubFigure, view: ShownView, columns: int) -> None:
    levels = len(view.strides)
    panels = part.subplots(-(-levels // columns), columns, squeeze=False).ravel()
    for level, axes in enumerate(panels[:levels]):
        _draw_level(axes, view, level, LEVELS_WIDTH / columns)
    for axes in panels[levels:]:
        axes.set_axis_off()


def _draw_level(axes: Axes, view: ShownView, level: int, inches: float) -> None:
    """Cells of the valuable region by weight, and points of the main region in their object's color."""
    _show_pixels(axes, view)
    height, width = view.size_hw
    axes.add_patch(Rectangle((0, 0), width, height, facecolor="white", alpha=PALE, linewidth=0))
    points = view.stored.view.points
    here = points.level == level
    xy, weights, main_gt = view.places.xy[here], points.valuable_weight[here], points.main_gt[here]
    stride = view.strides[level]
    valuable, main = weights > 0, main_gt != NOT_MAIN
    axes.add_collection(_cells(xy[valuable], weights[valuable], stride))
    boxes = view.stored.view.boxes_xyxy.tolist()
    for box, corners in enumerate(boxes):
        axes.add_patch(_outline(corners, box_color(box), "-", 1.0 if len(boxes) <= MOST_LABELS else 0.5))
    axes.scatter(
        xy[main, 0],
        xy[main, 1],
        s=_dot_area(stride * inches * POINTS_PER_INCH / width),
        c=[box_color(box) for box in main_gt[main].tolist()],
        edgecolors="white",
        linewidths=0.5,
        zorder=4,
    )
    counts = f"{np.count_nonzero(main):,} main, {np.count_nonzero(valuable):,} valuable"
    axes.set_title(f"P{level + 3}, stride {stride}\n{counts if here.any() else 'nothing kept'}")


def _cells(xy: NDArray[np.float32], weights: NDArray[np.float32], side: int) -> PolyCollection:
    """A square around each point, the more opaque the heavier it is."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.47 * side
    colors = [mpl.colors.to_rgba(VALUABLE, _opacity(weight)) for weight in weights.tolist()]
    return PolyCollection(list(xy[:, None] + corners), facecolors=colors, linewidths=0, zorder=2)


def _opacity(weight: float) -> float:
    return LOWEST_OPACITY + OPACITY_SPREAD * min(1.0, weight / FULL_WEIGHT)


def _dot_area(cell: float) -> float:
    """matplotlib's size of a dot in a cell of so many points: it leaves the cell visible."""
    return float(np.clip(0.4 * cell, 2.5, 9.0)) ** 2


def _draw_objects(part: SubFigure, view: ShownView, objects: Sequence[ShownObject]) -> None:
    """A row an object: its surroundings, and the four distributions."""
    grid = part.subplots(len(objects), 5, squeeze=False, width_ratios=(1.0, 1.6, 1.6, 1.6, 1.6))
    for place, (shown, row) in enumerate(zip(objects, grid, strict=True)):
        _draw_crop(row[0], view, shown, _letter(place))
        top = 1.15 * float(shown.probabilities.max())
        for edge, axes in enumerate(row[1:]):
            _draw_edge(axes, shown, edge, top)
    for axes in grid[-1, 1:]:
        axes.set_xlabel("distance from the point, px")


def _draw_crop(axes: Axes, view: ShownView, shown: ShownObject, letter: str) -> None:
    """The object with its true and the teacher's box, and a little of what is around them."""
    _show_pixels(axes, view)
    truth = view.stored.view.boxes_xyxy[shown.box]
    axes.add_patch(_outline(truth.tolist(), box_color(shown.box), "-", 1.8))
    _mark_teacher(axes, shown)
    low = np.minimum(truth[:2], shown.teacher_xyxy[:2])
    high = np.maximum(truth[2:], shown.teacher_xyxy[2:])
    half, (x, y) = 0.6 * float((high - low).max()), (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    axes.set_title(f"{letter} {view.class_name(shown.box)} {shown.score:.2f}, P{shown.level + 3}")


def _draw_edge(axes: Axes, shown: ShownObject, edge: int, top: float) -> None:
    """One distribution as bars over distances, with its mean and the truth."""
    said, truth = shown.distances_px[edge], shown.target_px[edge]
    bins = np.arange(shown.probabilities.shape[1])
    axes.bar(bins * shown.stride, shown.probabilities[edge], width=0.86 * shown.stride, color="#9aa5b8")
    axes.axvline(truth, color=TRUTH, linewidth=1.6)
    axes.axvline(said, color=TEACHER, linewidth=1.4, linestyle=(0, (4, 2)))
    axes.set_title(f"{EDGE_NAMES[edge]}: {said:.1f} px, truth {truth:.1f}")
    axes.set(xlim=(-0.7 * shown.stride, (last_shown_bin(shown) + 0.7) * shown.stride), ylim=(0, top))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
    axes.grid(visible=False, axis="x")


def last_shown_bin(shown: ShownObject) -> int:
    """Where the axes of an object end: after the last likely bin of any edge, and after the truth."""
    likely = np.flatnonzero((shown.probabilities > SHOWN_PROBABILITY).any(axis=0))
    furthest = int(np.ceil(max(shown.target_px.max(), shown.distances_px.max()) / shown.stride))
    last: int = shown.probabilities.shape[1] - 1
    return min(max(int(likely.max(initial=0)), furthest) + 1, last)


def box_color(place: int) -> str:
    """Color of a view's ``place``-th object."""
    return PALETTE[place % len(PALETTE)]
