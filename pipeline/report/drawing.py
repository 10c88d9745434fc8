"""Boxes, points and distributions drawn over pixels, for the page and for ``ldp store show``.

Every function draws on given axes, whose unit is a pixel of the view; ``scale`` is the number of typographic
points (1/72 inch, or 1 px of the page) that such a pixel takes.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from torch import Tensor

from pipeline.report.shown_views import EdgeExample, ShownView
from pipeline.views.types import NOT_MAIN

INK, MUTED, HAIRLINE, TRUTH = "#22262e", "#6b7280", "#d8dce3", "#1f7a4d"
TEACHER, VALUABLE = "#27364f", "#d79a1e"

STYLE: Final[Any] = {
    "font.size": 12.0,
    "text.color": INK,
    "axes.edgecolor": HAIRLINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 8.0,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef2",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 11.0,
    "ytick.labelsize": 11.0,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
}
"""Matplotlib's settings, for charts and pictures."""

PALETTE = (
    *("#d1495b", "#0072b2", "#2a9d5c", "#c77700", "#7b4fb5"),
    *("#00889a", "#b5367f", "#6b6f1a", "#8c4a2f", "#4a5fc1"),
)
"""Colors of classes and objects: dark enough for white text on them."""
EDGE_NAMES = ("left", "top", "right", "bottom")
LABEL_FONT, LABEL_HEIGHT, LABEL_PADDING, CHARACTER_WIDTH = 9.0, 13.0, 4.0, 5.6
"""Labels of boxes, points."""
HALO = [withStroke(linewidth=3.4, foreground="white", alpha=0.7)]
"""Keeps lines visible on any picture."""


def class_color(number: int) -> str:
    """Color of the ``number``-th class, or of a view's ``number``-th object."""
    return PALETTE[number % len(PALETTE)]


def draw_pixels(axes: Axes, pixels: Tensor, pale: float = 0.0) -> None:
    """``ByteTensor[3, H, W]`` under a veil; pixel centers are at whole numbers + 1/2, as boxes count them."""
    height, width = pixels.shape[1:]
    axes.imshow(pixels.permute(1, 2, 0).numpy(), extent=(0, width, height, 0), interpolation="bilinear")
    axes.add_patch(Rectangle((0, 0), width, height, facecolor="white", alpha=pale, linewidth=0))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def draw_box(axes: Axes, xyxy: Sequence[float], color: str, width: float = 1.8, dash: str = "-") -> None:
    """The outline of a box."""
    x1, y1, x2, y2 = xyxy
    look: Any = {"edgecolor": color, "linestyle": dash, "linewidth": width, "fill": False, "zorder": 3}
    halo = [] if color == "white" else HALO
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, path_effects=halo, **look))


def draw_labels(
    axes: Axes, boxes_xyxy: NDArray[np.floating], colors: Sequence[str], texts: Sequence[str], scale: float
) -> None:
    """A label at a corner of each box, where there is room for it in the picture beside the others."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    taken: list[Bbox] = []
    for (x1, y1, x2, y2), color, text in zip(boxes_xyxy.tolist(), colors, texts, strict=True):
        w, h = (len(text) * CHARACTER_WIDTH + LABEL_PADDING) / scale, LABEL_HEIGHT / scale
        corners = [(min(max(x, 0), width - w), y) for y in (y1 - h, y2, y1, y2 - h) for x in (x1, x2 - w)]
        inside = (Bbox.from_bounds(x, y, w, h) for x, y in corners if x >= 0 and 0 <= y <= height - h)
        place = next((place for place in inside if not place.count_overlaps(taken)), None)
        if place:
            taken.append(place)
            axes.add_patch(Rectangle((place.x0, place.y0), w, h, facecolor=color, linewidth=0, zorder=5))
            look: Any = {"ha": "center", "va": "center_baseline", "zorder": 6}
            axes.text(place.x0 + w / 2, place.y0 + h / 2, text, color="white", fontsize=LABEL_FONT, **look)


def draw_view(axes: Axes, _scale: float, view: ShownView) -> None:
    """Its pixels and boxes, a color an object."""
    draw_pixels(axes, view.pixels)
    for number, box in enumerate(view.boxes.tolist()):
        draw_box(axes, box, class_color(number))


def draw_regions(axes: Axes, scale: float, view: ShownView, level: int) -> None:
    """Cells of the valuable region by weight, and points of the main region in their object's color."""
    draw_pixels(axes, view.pixels, pale=0.62)
    chosen, stride = view.level == level, view.pyramid.strides[level]
    xy, weights, main_gt = view.points_xy[chosen], view.valuable_weight[chosen], view.main[chosen]
    # A cell is a hair apart from the next one.
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.47 * stride
    valuable, main = weights > 0, main_gt != NOT_MAIN
    colors = [mpl.colors.to_rgba(VALUABLE, opacity(weight)) for weight in weights[valuable].tolist()]
    cells = list(xy[valuable][:, None] + corners)
    axes.add_collection(PolyCollection(cells, facecolors=colors, linewidths=0, zorder=2))
    for number, box in enumerate(view.boxes.tolist()):
        draw_box(axes, box, class_color(number), 1.2)
    dot = float(np.clip(0.35 * stride * scale, 2.5, 11.0))
    of_object = [class_color(box) for box in main_gt[main].tolist()]
    x, y = xy[main].T
    axes.scatter(x, y, s=dot**2, c=of_object, edgecolors="white", linewidths=0.6, zorder=4)


def opacity(weight: float) -> float:
    """How opaque a cell of the valuable region is: no more above 1/2, for weights are mostly below it."""
    return 0.15 + 0.75 * min(1.0, weight / 0.5)


def count_regions(view: ShownView, level: int) -> tuple[int, int]:
    """Points of a level in the main and in the valuable region."""
    chosen = view.level == level
    main, valuable = view.main[chosen] != NOT_MAIN, view.valuable_weight[chosen]
    return int(main.sum()), int(np.count_nonzero(valuable))


def draw_teacher(axes: Axes, example: EdgeExample) -> None:
    """The box that the teacher's distributions decode to, and their point."""
    draw_box(axes, example.teacher_xyxy.tolist(), TEACHER, 1.6, "--")
    x, y = example.point_xy.tolist()
    axes.plot(x, y, marker="+", color=TEACHER, markersize=9, markeredgewidth=1.8, path_effects=HALO, zorder=4)


def draw_crop(axes: Axes, example: EdgeExample) -> None:
    """The object with its true and the teacher's box, and a little of what is around them."""
    draw_pixels(axes, example.view.pixels)
    draw_box(axes, example.box_xyxy.tolist(), TRUTH)
    draw_teacher(axes, example)
    corners = example.box_xyxy.reshape(2, 2)
    half = 0.85 * np.ptp(corners, axis=0).max()
    # Moved rather than cut where it would leave the picture.
    sides = np.array(example.view.geometry.resized_hw[::-1])
    x, y = corners.mean(axis=0).clip(half, np.maximum(half, sides - half)).tolist()
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))


def draw_object(example: EdgeExample, colors: Mapping[str, str], panels: Sequence[Axes]) -> None:
    """Its surroundings on the first panel, and an edge on each of the other four; ``colors`` by student."""
    draw_crop(panels[0], example)
    for edge, axes in enumerate(panels[1:]):
        _draw_edge(axes, example, edge, colors)


def _draw_edge(axes: Axes, example: EdgeExample, edge: int, colors: Mapping[str, str]) -> None:
    """An edge's distributions; bars are the teacher, lines the students."""
    every = np.stack([example.teacher, *example.students.values()])
    bars = range(every.shape[-1])
    axes.bar(bars, example.teacher[edge], width=0.86, color=TEACHER, alpha=0.28, linewidth=0)
    for name, student in example.students.items():
        axes.plot(student[edge], color=colors[name], marker="o", markersize=2.6, linewidth=1.3)
    axes.axvline(float(example.target[edge]), color=TRUTH, linewidth=1.4, linestyle=(0, (4, 2)))
    mean, truth = example.distances[edge] * example.stride, example.target[edge] * example.stride
    axes.set_title(f"{EDGE_NAMES[edge]}: {mean:.1f}, truth {truth:.1f} px")
    note = f"H {example.entropy[edge]:.2f}"
    axes.text(0.985, 0.98, note, transform=axes.transAxes, ha="right", va="top", color=MUTED, size="small")
    # The axes end after the last bin that any detector finds likely, and after the truth; above is the note.
    likely = np.flatnonzero((every > 0.01).any(axis=(0, 1)))
    last = min(max(int(likely.max(initial=0)), ceil(example.target.max())) + 2, every.shape[-1] - 1)
    axes.set(xlim=(-0.7, last + 0.7), ylim=(0, 1.15 * every.max()))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
    axes.grid(visible=False, axis="x")
