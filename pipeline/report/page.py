"""The page itself: colors, charts and tables put into the template."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.report import figures, summary, tables
from pipeline.report.collect import Report
from pipeline.report.figures import Dash, Line
from pipeline.report.lessons import Lesson
from pipeline.report.numbers import FILTERS
from pipeline.report.pictures import Picture, crop, embed_picture
from pipeline.report.regions import (
    WEIGHT_STEPS,
    RegionView,
    choose_region_views,
    draw_regions,
    shade_opacity,
)
from pipeline.report.runs import Role, Run
from pipeline.report.strips import SHOWN_SCORE
from pipeline.report.style import MAIN, TEACHER, TRUTH, VALUABLE

TEMPLATE = Path(__file__).with_name("page.html")

ROLE_COLORS: Mapping[Role, Sequence[str]] = {
    "teacher": (TEACHER,),
    "plain": ("#5a92bd", "#7fa88f", "#a08a63", "#9a86ad"),
    "distilled": ("#cf4f2e", "#d99a2b", "#8e3f72", "#3c7d94"),
}
"""A detector has one color in all charts."""

REPEATED_DASHES: Sequence[Dash] = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
"""Line styles of the first, second and third detector of one color."""

REGION_PX = 250.0
CROP_PX = 132.0
"""Long edges of pictures, as shown."""

CROP_MARGIN = 0.35
"""Of the object's longer side, on each side."""


@dataclass(frozen=True, kw_only=True)
class LessonRow:
    """One object of the section on edge distributions."""

    picture: Picture
    box: tuple[float, float, float, float]
    point: tuple[float, float]
    title: str
    place: str
    spread: float
    """Effective number of bins, ``exp`` of the mean entropy."""
    chart: Markup


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
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        temperature=summary.temperature(report),
        area_edges=area_edges,
        metrics=tables.METRICS,
        **_words(report),
        **_tables(report),
        **_charts(report),
        **_pictures(report),
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


def _charts(report: Report) -> dict[str, Any]:
    runs = [report.teacher, *report.students]
    lines = detector_lines(runs)
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


def _pictures(report: Report) -> dict[str, Any]:
    views = [
        draw_regions(view, report.schema.strides, REGION_PX) for view in choose_region_views(report.views)
    ]
    return {
        "class_legend": [(color, name) for name, color in report.gallery.colors.items()],
        "shown_score": SHOWN_SCORE,
        "pair_names": [run.name for run in report.pair.runs],
        "lessons": _lesson_rows(report),
        "region_views": [_without_empty_levels(view, views) for view in views],
        "empty_levels": _empty_levels(views),
        "region_columns": 2 if views and len(views[0].panels) - len(_empty_levels(views)) <= 2 else 1,
        "shades": [shade_opacity(step) for step in range(WEIGHT_STEPS)],
    }


def _empty_levels(views: Sequence[RegionView]) -> list[str]:
    """Titles of the levels on which no shown view keeps a point."""
    if not views:
        return []
    return [
        panel.title
        for level, panel in enumerate(views[0].panels)
        if not any(view.panels[level].kept for view in views)
    ]


def _without_empty_levels(view: RegionView, views: Sequence[RegionView]) -> RegionView:
    empty = _empty_levels(views)
    return replace(view, panels=[panel for panel in view.panels if panel.title not in empty])


def _lesson_rows(report: Report) -> list[LessonRow]:
    pair = {run.name for run in report.pair.runs}
    lines = detector_lines([report.teacher, *report.students])
    return [
        _lesson_row(report, lesson, [line for line in lines if line.name in pair], lines[0])
        for lesson in report.lessons
    ]


def _lesson_row(report: Report, lesson: Lesson, lines: Sequence[Line], teacher: Line) -> LessonRow:
    pixels, corner = crop(lesson.pixels, lesson.box_xyxy, CROP_MARGIN)
    picture = embed_picture(pixels, CROP_PX)
    x1, y1, x2, y2 = ((lesson.box_xyxy - np.tile(corner, 2)) * picture.scale).tolist()
    x, y = ((lesson.point_xy - corner) * picture.scale).tolist()
    level = report.schema.strides.index(int(lesson.stride))
    return LessonRow(
        picture=picture,
        box=(x1, y1, x2 - x1, y2 - y1),
        point=(x, y),
        title=report.train.categories[lesson.label].name,
        place=f"image {lesson.key.image_id}, P{level + 3}",
        spread=math.exp(float(lesson.entropy.mean())),
        chart=Markup(figures.edges_chart(lesson, lines, teacher)),
    )
