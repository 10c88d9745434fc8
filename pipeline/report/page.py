"""The page itself: colors, charts and tables put into the template."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from pipeline.core.progress import counted
from pipeline.report import figures, summary, tables
from pipeline.report.collect import Report
from pipeline.report.detections import (
    SHOWN_SCORE,
    ShownImage,
    choose_colors,
    describe,
    draw_detections,
    draw_truth,
)
from pipeline.report.drawing import (
    Line,
    class_color,
    count_regions,
    draw_box,
    draw_crop,
    draw_pixels,
    draw_regions,
    opacity,
)
from pipeline.report.edge_examples import EdgeExample
from pipeline.report.figures import Picture, draw_picture, edges_chart
from pipeline.report.numbers import FILTERS
from pipeline.report.runs import Role, Run
from pipeline.report.shown_views import ShownView
from pipeline.report.style import MAIN, PALETTE, TEACHER, TRUTH, VALUABLE

TEMPLATE = Path(__file__).with_name("page.html")

ROLE_COLORS: Mapping[Role, Sequence[str]] = {
    "teacher": (TEACHER,),
    "plain": ("#5a92bd", "#7fa88f", "#a08a63", "#9a86ad"),
    "distilled": ("#cf4f2e", "#d99a2b", "#8e3f72", "#3c7d94"),
}
"""A detector has one color in all charts."""

REPEATED_DASHES: Sequence[str | tuple[float, Sequence[float]]] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
"""Line styles of the first, second and third detector of one color."""

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
    """Color and line style of every detector, by its role and its place among those of the role."""
    lines = []
    for run in runs:
        place = [other.name for other in runs if other.role == run.role].index(run.name)
        colors = ROLE_COLORS[run.role]
        dash = REPEATED_DASHES[place // len(colors) % len(REPEATED_DASHES)]
        lines.append(Line(name=run.name, color=colors[place % len(colors)], dash=dash))
    return lines


def render(report: Report, area_edges: tuple[float, float]) -> str:
    """The page as HTML that needs no other file.

    Args:
        report: See :func:`pipeline.report.collect.collect`.
        area_edges: Sides in px that part small, medium and large objects.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    lines = detector_lines([report.teacher, *report.students])
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        temperature=summary.temperature(report),
        area_edges=area_edges,
        metrics=tables.METRICS,
        **_words(report),
        **_tables(report),
        **_charts(report, lines),
        **_pictures(report, lines),
    )


def _words(report: Report) -> dict[str, Any]:
    return {
        "claim": summary.claim(report),
        "tiles": summary.tiles(report),
        "break_even": summary.describe_break_even(report),
        "training_times": summary.describe_training_times(report),
        "positions": _mean(report.statistics.view_positions),
        "unassigned": int(np.count_nonzero(report.statistics.box_points == 0)),
    }


def _mean(counts: NDArray[np.int64]) -> float:
    return float(counts.mean()) if len(counts) else 0.0


def _tables(report: Report) -> dict[str, Any]:
    return {
        "results": tables.result_rows(report.teacher, report.students),
        "classes": tables.class_rows(report),
        "size_bars": tables.size_bars(report),
        "part_bars": tables.part_bars(report),
        "store_facts": tables.store_facts(report),
        "fidelity": tables.fidelity_rows(report),
        "levels": tables.level_rows(report),
        "provenance": tables.provenance(report),
    }


def _charts(report: Report, lines: Sequence[Line]) -> dict[str, Any]:
    runs = [report.teacher, *report.students]
    losses = {run.name: run.losses for run in runs}
    loss_chart = figures.loss_chart(losses, lines)
    region_colors = (VALUABLE, MAIN)
    return {
        "lines": lines,
        "detector_legend": [(line.color, line.name) for line in lines],
        "precision_recall": Markup(
            figures.precision_recall_chart({run.name: run.precision_recall for run in runs}, lines)
        ),
        "losses": Markup(loss_chart) if loss_chart else None,
        "entropy": Markup(figures.entropy_chart(report.statistics, report.schema.strides, region_colors)),
        "box_points": Markup(figures.box_points_chart(report.statistics, MAIN)),
        "view_points": Markup(figures.view_points_chart(report.statistics, region_colors)),
        "region_colors": region_colors,
        "truth_color": TRUTH,
    }


def _pictures(report: Report, lines: Sequence[Line]) -> dict[str, Any]:
    pair = {run.name for run in report.pair.runs}
    views = choose_region_views(report.views)
    colors = choose_colors(report.images)
    names = {category.category_id: category.name for category in report.val.categories}
    levels = [level for level in range(len(report.schema.strides)) if any(map(_kept(level), views))]
    return {
        "images": [_image_row(image, names, colors) for image in report.images],
        "class_legend": [(colors[c], names[c]) for c in colors] if len(colors) <= len(PALETTE) else [],
        "shown_score": SHOWN_SCORE,
        "pair_lines": [line for line in lines if line.name in pair],
        "examples": [
            _example_row(example, [line for line in lines if line.name in pair])
            for example in report.examples
        ],
        "region_views": [_region_row(view, levels) for view in views],
        "region_columns": 2 if len(levels) <= 2 else 1,
        "empty_levels": [
            _level_title(report.schema.strides, level)
            for level in range(len(report.schema.strides))
            if level not in levels
        ],
        "shades": [opacity(weight) for weight in (0.05, 0.15, 0.25, 0.35, 0.45, 0.5)],
    }


def choose_region_views(views: Sequence[ShownView]) -> list[ShownView]:
    """The first sampled views of a few objects; if there is none, the first with any object."""
    low, high = REGION_OBJECTS
    few = [view for view in views if low <= len(view.stored.view.labels) <= high]
    return (few or [view for view in views if len(view.stored.view.labels)])[:REGION_VIEWS]


def _kept(level: int) -> Callable[[ShownView], bool]:
    return lambda view: bool((view.stored.view.points.level == level).any())


def _level_title(strides: Sequence[int], level: int) -> str:
    return f"P{level + 3}, stride {strides[level]}"


def _image_row(
    image: ShownImage, names: Mapping[int, str], colors: Mapping[int, str]
) -> list[tuple[str, Picture, str]]:
    """Title, picture and caption of the ground truth and of every detector."""
    size = image.pixels.shape[1], image.pixels.shape[2]
    shown = (GALLERY_PX + GAP_PX) / (len(image.detections) + 1) - GAP_PX
    truth = draw_picture(size, shown, lambda axes, scale: draw_truth(axes, image, names, colors, scale))
    row = [("ground truth", truth, counted(len(image.objects), "object"))]
    for name in image.detections:
        plot = partial(_draw_detections, image=image, name=name, names=names, colors=colors)
        row.append((name, draw_picture(size, shown, plot), describe(image, name)))
    return row


def _draw_detections(axes: Axes, scale: float, **shown: Any) -> None:
    draw_detections(axes, scale=scale, **shown)


def _region_row(view: ShownView, levels: Sequence[int]) -> tuple[str, list[tuple[Picture, str, str]]]:
    """Title of a view, and its pictures with two lines of caption: the view, then level by level."""
    boxes = view.stored.view.boxes_xyxy.tolist()

    def plot(axes: Axes, _scale: float) -> None:
        draw_pixels(axes, view.pixels)
        for number, box in enumerate(boxes):
            draw_box(axes, box, class_color(number))

    pictures = [(draw_picture(view.size_hw, REGION_PX, plot), counted(len(boxes), "object"), "")]
    for level in levels:
        main, valuable = count_regions(view, level)
        picture = draw_picture(view.size_hw, REGION_PX, partial(_draw_level, view=view, level=level))
        title = _level_title(view.level_strides, level)
        pictures.append((picture, title, f"{main} main, {valuable} valuable"))
    return view.title, pictures


def _draw_level(axes: Axes, scale: float, view: ShownView, level: int) -> None:
    draw_regions(axes, view, level, scale)


def _example_row(example: EdgeExample, lines: Sequence[Line]) -> dict[str, Any]:
    return {
        "picture": draw_picture((1, 1), CROP_PX, lambda axes, _scale: draw_crop(axes, example)),
        "title": f"{example.class_name} {example.score:.2f}",
        "place": f"image {example.view.stored.view.key.image_id}, {example.level}",
        # Effective number of bins.
        "bins": math.exp(float(example.entropy.mean())),
        "chart": Markup(edges_chart(example, lines)),
    }
