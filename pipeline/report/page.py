"""The page itself: the template places everything; what it draws is given to it from here."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from pipeline.core.errors import short_repr
from pipeline.core.files import digest
from pipeline.core.progress import counted
from pipeline.report import collect, detections, drawing, figures, runs, shown_views, style, summary
from pipeline.report.collect import Report
from pipeline.report.detections import ShownImage, choose_colors, draw_image
from pipeline.report.drawing import Line
from pipeline.report.figures import draw_picture
from pipeline.report.numbers import FILTERS
from pipeline.report.runs import Role, Run
from pipeline.report.shown_views import EdgeExample, ShownView
from pipeline.report.style import PALETTE, TEACHER
from pipeline.views.summary import lines as summary_lines

TEMPLATE = Path(__file__).with_name("page.html")

MODULES = (collect, detections, drawing, figures, runs, shown_views, style, summary)
"""What the template calls by name."""

ROLE_COLORS: Mapping[Role, Sequence[str]] = {
    "teacher": (TEACHER,),
    "plain": ("#5a92bd", "#7fa88f", "#a08a63", "#9a86ad"),
    "distilled": (
        *("#cf4f2e", "#d99a2b", "#8e3f72", "#3c7d94", "#6b6f1a"),
        *("#b5367f", "#2a9d5c", "#7b4fb5", "#8c4a2f", "#4a5fc1"),
    ),
}
"""A detector has one color in all charts."""

REGION_PX = 250.0
CROP_PX = 132.0
"""Long edges of pictures, as shown."""

GALLERY_PX, GAP_PX = 1082.0, 16.0
"""Width of a row of validation images and space between its pictures, as shown."""

REGION_VIEWS = 4
"""Views whose regions are shown."""

REGION_OBJECTS = (2, 4)
"""Smallest and largest number of objects of a view that is preferred."""


def detector_lines(runs: Sequence[Run]) -> list[Line]:
    """Name and color of every detector, by its role and its place among those of the role."""
    turns = {role: cycle(colors) for role, colors in ROLE_COLORS.items()}
    return [Line(run.name, next(turns[run.role])) for run in runs]


def render(report: Report, area_edges: tuple[float, float]) -> str:
    """The page as HTML that needs no other file; ``area_edges`` px part small, medium and large objects."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS, counted=counted, exp=math.exp)
    environment.globals.update({module.__name__.rpartition(".")[2]: module for module in MODULES})
    lines = detector_lines(report.runs)
    views = choose_region_views(report.views)
    levels = sorted(set().union(*(view.stored.view.points.level.tolist() for view in views)))
    names = [f"P{level + 3}, stride {stride}" for level, stride in enumerate(report.store.schema.strides)]
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        area_edges=area_edges,
        level_names=names,
        empty_levels=[name for level, name in enumerate(names) if level not in levels],
        lines=lines,
        pair_lines=[line for line in lines if line.name in [run.name for run in report.pair.runs]],
        split_facts=lambda manifest: "; ".join(summary_lines(manifest)),
        fingerprint=dict(flatten(report.store.schema.fingerprint)),
        fingerprint_sha256=digest(report.store.schema.fingerprint),
        **_images(report),
        region_views=views,
        region_levels=levels,
        region_picture=_region_picture,
        crop=_crop,
    )


def flatten(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The dotted path of each value, and the value in a few words."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value if isinstance(value, str) else short_repr(value)


def _images(report: Report) -> dict[str, Any]:
    """What the template needs to draw the validation images."""
    colors = choose_colors(report.images)
    names = {category.category_id: category.name for category in report.val.categories}

    def picture(image: ShownImage, detector: str | None, label: str) -> Markup:
        """The detections of a detector; without one, the ground truth."""
        height, width = image.pixels.shape[1:]
        return draw_picture(
            (height, width),
            (GALLERY_PX + GAP_PX) / (len(image.detections) + 1) - GAP_PX,
            label,
            lambda axes, scale: draw_image(axes, image, detector, names, colors, scale),
        )

    few = len(colors) <= len(PALETTE)
    return {"picture": picture, "class_legend": [(colors[c], names[c]) for c in colors] if few else []}


def _crop(example: EdgeExample, label: str) -> Markup:
    return draw_picture((1, 1), CROP_PX, label, lambda axes, _: drawing.draw_crop(axes, example))


def _region_picture(view: ShownView, level: int | None, label: str) -> Markup:
    """The regions of a level of a view; without one, the boxes."""

    def plot(axes: Axes, scale: float) -> None:
        if level is not None:
            drawing.draw_regions(axes, view, level, scale)
            return
        drawing.draw_pixels(axes, view.pixels)
        for number, box in enumerate(view.stored.view.boxes_xyxy.tolist()):
            drawing.draw_box(axes, box, drawing.class_color(number))

    return draw_picture(view.size_hw, REGION_PX, label, plot)


def choose_region_views(views: Sequence[ShownView]) -> list[ShownView]:
    """The first sampled views of a few objects; if there is none, the first with any object."""
    low, high = REGION_OBJECTS
    few = [view for view in views if low <= len(view.stored.view.labels) <= high]
    return (few or [view for view in views if len(view.stored.view.labels)])[:REGION_VIEWS]
