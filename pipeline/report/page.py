"""The page itself: the template places everything; what it draws is given to it from here."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core.config import dump_yaml
from pipeline.core.files import digest
from pipeline.core.progress import break_even, counted, describe_bytes
from pipeline.report import detections, drawing, figures, shown_views
from pipeline.report.collect import Report
from pipeline.report.drawing import TEACHER, Line
from pipeline.report.figures import TERM_NAMES
from pipeline.report.runs import Run
from pipeline.report.shown_views import choose_examples, spread
from pipeline.student.train import SCHEDULES
from pipeline.views.summary import lines as summary_lines

STUDENT_COLORS = ("#5a92bd", "#cf4f2e", "#d99a2b", "#8e3f72", "#3c7d94", "#6b6f1a")
"""A student has one color in all charts."""

REGION_VIEWS, EXAMPLES = 4, 6
"""Views whose regions are shown, and objects whose edge distributions are."""


def shown(value: float | None, pattern: str = "{:,.1f}") -> str:
    """A number by a pattern of ``str.format``; a dash for what is unknown."""
    return "\N{EN DASH}" if value is None else pattern.format(value)


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def detector_lines(runs: Sequence[Run]) -> list[Line]:
    """Name and color of every detector: a student has its own by its place."""
    colors = cycle(STUDENT_COLORS)
    return [Line(run.name, next(colors) if run.student else TEACHER) for run in runs]


def headline(report: Report) -> str:
    """AP of every detector in a line."""
    figures = []
    for run in report.runs:
        gain = report.gain(run)
        figures.append(f"{run.name} {shown(run.ap)}" + ("" if gain is None else f" ({gain:+z.1f})"))
    return f"AP: {', '.join(figures)}"


def claim(report: Report) -> str:
    """What one sees, in a sentence."""
    run = report.distilled
    if run is None:
        return "No student of this run was distilled: the store is there, and no student has read it."
    compared, baseline = "no plain student of the same kind was trained", report.baseline(run)
    if baseline:
        without = f"the same {baseline.backbone} trained without distillation ({shown(baseline.ap)})"
        compared = f"{shown(report.gain(run), '{:+z.1f}')} against {without}"
    name = f"\N{LEFT DOUBLE QUOTATION MARK}{run.name}\N{RIGHT DOUBLE QUOTATION MARK}"
    reached = f"Trained from cached teacher outputs, the student {name} reaches {shown(run.ap)} AP"
    return f"{reached}: {compared}."


def taught_by(run: Run) -> str:
    """What a detector learned from, in a few words."""
    if run.student is None:
        return "ground truth; the source of the store"
    weights = {term: getattr(run.student.loss, f"{name}_weight") for term, name in SCHEDULES.items()}
    terms = [f"{TERM_NAMES[term]} {weight:g}" for term, weight in weights.items() if weight]
    return " + ".join(["ground truth", *terms]) if terms else "ground truth alone"


def render(report: Report, area_edges: tuple[float, float]) -> str:
    """The page as HTML that needs no other file; ``area_edges`` px part small, medium and large objects."""
    loader = FileSystemLoader(Path(__file__).parent)
    layout: Any = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **layout)
    environment.filters |= {f.__name__: f for f in (shown, duration, counted, describe_bytes, dump_yaml)}
    modules = (detections, drawing, figures, shown_views)
    environment.globals |= {module.__name__.rpartition(".")[2]: module for module in modules}
    lines, schema = detector_lines(report.runs), report.store.schema
    few = [view for view in report.views if 2 <= len(view.labels) <= 4]
    views = (few or [view for view in report.views if len(view.labels)])[:REGION_VIEWS]
    return environment.get_template("page.html").render(
        report=report,
        area_edges=area_edges,
        claim=claim(report),
        taught_by=taught_by,
        lines=lines,
        pair_lines=[line for line in lines if line.name in [run.name for run in report.pair]],
        examples=spread(choose_examples(report.views), EXAMPLES),
        region_views=views,
        region_levels=sorted(set().union(*(view.level.tolist() for view in views))),
        level_names=[f"P{level + 3}, stride {stride}" for level, stride in enumerate(schema.strides)],
        break_even=break_even,
        split_facts=lambda manifest: "; ".join(summary_lines(manifest)),
        fingerprint_sha256=digest(schema.fingerprint),
    )
