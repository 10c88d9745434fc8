"""Charts as inline SVG: matplotlib figures, one function each; text stays text, so the page sets its font."""

import base64
import re
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.drawing import Line, draw_edge
from pipeline.report.runs import Run
from pipeline.report.shown_views import EdgeExample
from pipeline.report.style import EDGE_NAMES, STYLE

T = TypeVar("T")

PX_PER_INCH = 72
"""Of matplotlib's SVG: one unit of the view box is one CSS pixel."""

SPREAD_OF_LOG_SCALE = 30.0
"""Ratio of the largest to the smallest value from which a loss is drawn on a logarithmic axis."""

PIXEL_RATIO = 2
"""Pixels of an embedded picture for each px that it is shown at."""

MAX_COLUMNS = 4

TERM_NAMES = {
    "loss_cls": "class (QFL)",
    "loss_bbox": "box (GIoU)",
    "loss_dfl": "edge distributions (DFL)",
    "loss_ld": "main LD",
    "loss_ld_vlr": "VLR LD",
    "loss_bckd_cls": "BCKD classes",
    "loss_bckd_box": "BCKD boxes",
    "loss_kd": "class KD",
    "loss_kd_vlr": "VLR class KD",
    "loss": "total",
}
"""Loss terms in words; an unknown one keeps its name."""

PANEL_GAP = 0.05
"""Space between panels, of their mean size."""


def draw_picture(
    size_hw: tuple[int, int], shown: float, label: str, plot: Callable[[Axes, float], None]
) -> Markup:
    """Draw over pixels of ``size_hw``: an ``<img>`` element that holds the result, ``shown`` px long.

    ``plot`` draws on axes that fill the picture, and is given the shown px of a pixel.
    """
    scale = shown / max(size_hw)
    height, width = (side * scale for side in size_hw)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width / PX_PER_INCH, height / PX_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        plot(axes, scale)
        axes.set_axis_off()
        content = BytesIO()
        figure.savefig(content, format="webp", dpi=PIXEL_RATIO * PX_PER_INCH, pil_kwargs={"quality": 85})
    element = Markup('<img src="data:image/webp;base64,{}" alt="{}" width="{:.0f}" height="{:.0f}">')
    return element.format(base64.b64encode(content.getvalue()).decode(), label, width, height)


def draw_panels(
    name: str,
    size: tuple[float, float],
    items: Sequence[T],
    plot: Callable[[Axes, T], None],
    columns: int = MAX_COLUMNS,
    **subplots: Any,
) -> Markup:
    """Draw a panel for each item on a new figure of ``size`` px, width first, as an ``<svg>`` element.

    The ids in it derive from the chart's ``name`` and content: the same each time, and no other chart's.
    """
    columns = max(1, min(columns, len(items)))
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / PX_PER_INCH, size[1] / PX_PER_INCH))
        figure.set_layout_engine("constrained", wspace=PANEL_GAP, hspace=PANEL_GAP)
        panels = figure.subplots(
            max(1, -(-len(items) // columns)), columns, squeeze=False, **subplots
        ).ravel()
        for axes, item in zip(panels, items, strict=False):
            plot(axes, item)
        for axes in panels[len(items) :]:
            axes.set_axis_off()
        text = StringIO()
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=metadata)
    return Markup(inline_svg(text.getvalue()))


def inline_svg(document: str) -> str:
    """The ``<svg>`` element of a document, as wide as its place.

    Groups lose their ids, which repeat, and the style sheet goes: it would rule the whole page.
    """
    element = document[document.index("<svg") :]
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r' xmlns(:xlink)?="[^"]*"', "", element, count=2)
    element = element.replace("xlink:href", "href")
    return re.sub(r'<svg width="([\d.]+)pt" height="[\d.]+pt"', r'<svg class="chart"', element, count=1)


def precision_recall_chart(runs: Sequence[Run], lines: Sequence[Line]) -> Markup:
    """A panel for every IoU threshold, with a line a run."""
    thresholds = list(dict.fromkeys(iou for run in runs for iou in run.precision_recall))

    def plot(axes: Axes, iou: str) -> None:
        for run, line in zip(runs, lines, strict=True):
            if curve := run.precision_recall.get(iou):
                area = 100 * float(np.mean(curve.y)) if curve.y else 0.0
                label = f"{line.name}  {area:.1f}"
                axes.plot(curve.x, curve.y, color=line.color, label=label)
        axes.legend(loc="best", labelcolor="linecolor", handlelength=0, handletextpad=0, frameon=False)
        title = f"precision at IoU \N{GREATER-THAN OR EQUAL TO} {iou}"
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", title=title)

    return draw_panels("precision_recall", (1120, 330), thresholds, plot, len(thresholds), sharey=True)


def loss_chart(runs: Sequence[Run], lines: Sequence[Line]) -> Markup | None:
    """A panel for every loss term that is not always 0; ``None`` if no run was long enough for a point."""
    terms = {term for run in runs for term, curve in run.losses.items() if any(curve.y)}
    if not terms:
        return None
    ordered = [*(term for term in TERM_NAMES if term in terms), *sorted(terms - TERM_NAMES.keys())]
    rows = -(-len(ordered) // MAX_COLUMNS)

    def plot(axes: Axes, term: str) -> None:
        pairs = zip(lines, runs, strict=True)
        shown = [(line, curve) for line, run in pairs if (curve := run.losses.get(term))]
        for line, curve in shown:
            # A run of one row has no line to draw; its dot is not to be cut by the panel's edge.
            dot: Any = {"marker": "o", "clip_on": False} if len(curve.y) == 1 else {}
            axes.plot(curve.x, curve.y, color=line.color, linewidth=1.4, **dot)
        values = [value for _, curve in shown for value in curve.y]
        if min(values) > 0 and max(values) > SPREAD_OF_LOG_SCALE * min(values):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.set_title(TERM_NAMES.get(term, term))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True, min_n_ticks=1))

    return draw_panels("losses", (1120, 215 * rows), ordered, plot)


def edges_chart(example: EdgeExample, lines: Sequence[Line]) -> Markup:
    """The four edge distributions of one object; bars are the teacher, lines the students."""

    return draw_panels(
        f"edges {example.view.stored.view.key}",
        (900, 150),
        range(len(EDGE_NAMES)),
        lambda axes, edge: draw_edge(axes, example, edge, lines),
        sharey=True,
    )
