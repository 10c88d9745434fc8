"""Where distillation looks: main and valuable region of stored views, level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.report.lessons import SampledView
from pipeline.report.pictures import PALETTE, Picture, Rectangle, embed_picture
from pipeline.views.types import NOT_MAIN

REGION_VIEWS = 4
"""Views that are shown."""

BOXES = (2, 4)
"""Smallest and largest number of objects of a view that is preferred."""

HAIR = 0.5
"""Half the space between cells, shown px."""

WEIGHT_STEPS = 6
"""Shades of the valuable region."""


@dataclass(frozen=True, kw_only=True)
class Shade:
    """All cells of one shade, as one SVG path of squares."""

    opacity: float
    path: str


@dataclass(frozen=True, kw_only=True)
class Dots:
    """Main-region points of one object, as one SVG path of dots."""

    color: str
    path: str


@dataclass(frozen=True, kw_only=True)
class LevelPanel:
    """One level of one view, in shown px."""

    title: str
    cell: float
    """Side of a cell."""
    dot: float
    """Diameter of a point."""
    shades: Sequence[Shade]
    dots: Sequence[Dots]
    caption: str

    @property
    def kept(self) -> bool:
        """Whether there is any point to draw."""
        return bool(self.shades or self.dots)


@dataclass(frozen=True, kw_only=True)
class RegionView:
    """One stored view with its regions."""

    title: str
    picture: Picture
    boxes: Sequence[tuple[Rectangle, str]]
    panels: Sequence[LevelPanel]


def choose_region_views(views: Sequence[SampledView]) -> list[SampledView]:
    """The first sampled views of a few objects; if there is none, the first with any object."""
    low, high = BOXES
    few = [view for view in views if low <= len(view.stored.view.labels) <= high]
    return (few or [view for view in views if len(view.stored.view.labels)])[:REGION_VIEWS]


def draw_regions(view: SampledView, level_strides: Sequence[int], shown: float) -> RegionView:
    """Both regions of a view, its pictures with a long edge of ``shown`` px."""
    planned = view.stored.view
    picture = embed_picture(view.pixels, shown)
    corners = planned.boxes_xyxy * picture.scale
    boxes = [
        ((float(x1), float(y1), float(x2 - x1), float(y2 - y1)), box_color(place))
        for place, (x1, y1, x2, y2) in enumerate(corners)
    ]
    flipped = ", flipped" if planned.geometry.flip else ""
    return RegionView(
        title=f"image {planned.key.image_id}{flipped}",
        picture=picture,
        boxes=boxes,
        panels=[_panel(view, level, stride, picture.scale) for level, stride in enumerate(level_strides)],
    )


def box_color(place: int) -> str:
    """Color of a view's ``place``-th object."""
    return PALETTE[place % len(PALETTE)]


def _panel(view: SampledView, level: int, stride: int, scale: float) -> LevelPanel:
    points = view.stored.view.points
    here = points.level == level
    xy, main_gt = view.points_xy[here] * scale, points.main_gt[here]
    weights = points.valuable_weight[here]
    main, valuable = main_gt != NOT_MAIN, weights > 0
    return LevelPanel(
        title=f"P{level + 3}, stride {stride}",
        cell=stride * scale,
        dot=dot_size(stride * scale),
        shades=shades(xy[valuable], weights[valuable], stride * scale),
        dots=[
            Dots(color=box_color(box), path=dots_path(xy[main_gt == box]))
            for box in np.unique(main_gt[main]).tolist()
        ],
        caption=f"{np.count_nonzero(main)} main, {np.count_nonzero(valuable)} valuable",
    )


def dot_size(cell: float) -> float:
    """Diameter of a point: grows with the level, and leaves its cell visible."""
    return float(np.clip(0.35 * cell, 2.5, 13.0))


def shades(xy: NDArray[np.float32], weights: NDArray[np.float32], cell: float) -> list[Shade]:
    """Cells by weight, an IoU: the heavier, the more opaque."""
    steps = np.minimum((weights * 2 * WEIGHT_STEPS).astype(int), WEIGHT_STEPS - 1)
    return [
        Shade(opacity=shade_opacity(step), path=squares_path(xy[steps == step], cell))
        for step in np.unique(steps).tolist()
    ]


def shade_opacity(step: int) -> float:
    """Opacity of the ``step``-th shade; the last one begins at a weight just below 1/2."""
    return round(0.2 + 0.65 * step / (WEIGHT_STEPS - 1), 3)


def squares_path(xy: NDArray[np.float32], side: float) -> str:
    """SVG path of squares around points (P, 2), a hair apart from each other."""
    half = side / 2 - min(HAIR, 0.05 * side)
    length = f"{2 * half:.2f}"
    return "".join(f"M{x - half:.2f},{y - half:.2f}h{length}v{length}h-{length}z" for x, y in xy.tolist())


def dots_path(xy: NDArray[np.float32]) -> str:
    """SVG path of points (P, 2): lines of no length, which a round line cap draws as dots."""
    return "".join(f"M{x:.1f},{y:.1f}h0" for x, y in xy.tolist())
