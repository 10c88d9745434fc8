"""Charts as inline SVG: matplotlib figures, one function each; text stays text, so the page sets its font."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from pipeline.report.drawing import HEADROOM, Line, draw_edges
from pipeline.report.edge_examples import EdgeExample
from pipeline.report.runs import Curve
from pipeline.report.statistics import StoreStatistics
from pipeline.report.style import EDGE_NAMES, INK, STYLE

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
    "loss_ld": "LD, main region",
    "loss_ld_vlr": "LD, valuable region",
    "loss_kd": "class KD, main region",
    "loss": "total",
}
"""Loss terms in words; an unknown one keeps its name."""

TENTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)

COUNT_BINS = 30
"""Most columns of a histogram of counts."""

PANEL_GAP = 0.05
"""Space between panels, of their mean size."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An embedded picture, and how large it is shown."""

    uri: str
    width: float
    height: float


def draw_picture(size_hw: tuple[int, int], shown: float, plot: Callable[[Axes, float], None]) -> Picture:
    """Draw over pixels and embed the result, with a long edge of ``shown`` px.

    Args:
        size_hw: Height and width of what is drawn, px.
        shown: Long edge on the page, px.
        plot: Draws on axes that fill the picture, given the shown px of a pixel.
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
    uri = f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
    return Picture(uri=uri, width=width, height=height)


def draw(name: str, width: float, height: float, plot: Callable[[Figure], None]) -> str:
    """Draw on a new figure of ``width`` x ``height`` px and return its ``<svg>`` element.

    The ids in it derive from the chart's ``name`` and content: the same each time, and no other chart's.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width / PX_PER_INCH, height / PX_PER_INCH), layout="constrained")
        plot(figure)
        text = StringIO()
        figure.savefig(
            text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return inline_svg(text.getvalue())


def spread_panels(figure: Figure) -> None:
    """Set panels so far apart that the numbers below them do not meet."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "see draw"
    engine.set(wspace=PANEL_GAP, hspace=PANEL_GAP)


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


def precision_recall_chart(curves: Mapping[str, Mapping[str, Curve]], lines: Sequence[Line]) -> str:
    """A panel for every IoU threshold.

    Args:
        curves: By name of the detector, then by threshold.
        lines: In drawing order.
    """
    thresholds = list(dict.fromkeys(iou for by_iou in curves.values() for iou in by_iou))

    def plot(figure: Figure) -> None:
        panels = figure.subplots(1, len(thresholds), sharey=True, squeeze=False)[0]
        for axes, iou in zip(panels, thresholds, strict=True):
            shown = {line.name: curves[line.name][iou] for line in lines if iou in curves[line.name]}
            _precision_recall(axes, shown, lines)
            axes.set_title(f"precision at IoU \N{GREATER-THAN OR EQUAL TO} {iou}")
            axes.set_xlabel("recall")
        spread_panels(figure)

    return draw("precision_recall", 1120, 330, plot)


def _precision_recall(axes: Axes, curves: Mapping[str, Curve], lines: Sequence[Line]) -> None:
    for line in lines:
        if line.name in curves:
            curve = curves[line.name]
            area = 100 * float(np.mean(curve.y)) if curve.y else 0.0
            axes.plot(
                curve.x, curve.y, color=line.color, linestyle=line.dash, label=f"{line.name}  {area:.1f}"
            )
    axes.legend(loc="best", labelcolor="linecolor", handlelength=0, handletextpad=0, frameon=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=TENTHS, yticks=TENTHS)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")


def loss_chart(curves: Mapping[str, Mapping[str, Curve]], lines: Sequence[Line]) -> str | None:
    """A panel for every loss term that is not always 0; ``None`` if no run was long enough for a point."""
    terms = list(
        dict.fromkeys(term for by_term in curves.values() for term, curve in by_term.items() if any(curve.y))
    )
    if not terms:
        return None
    ordered = [*(term for term in terms if term != "loss"), *(term for term in terms if term == "loss")]
    columns = min(MAX_COLUMNS, len(ordered))
    rows = -(-len(ordered) // columns)

    def plot(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, term in zip(panels, ordered, strict=False):
            _loss_term(axes, term, curves, lines)
        for axes in panels[len(ordered) :]:
            axes.set_axis_off()
        spread_panels(figure)

    return draw("losses", 1120, 215 * rows, plot)


def _loss_term(
    axes: Axes, term: str, curves: Mapping[str, Mapping[str, Curve]], lines: Sequence[Line]
) -> None:
    values: list[float] = []
    for line in lines:
        curve = curves[line.name].get(term)
        if curve:
            values += curve.y
            # A run of one row has no line to draw; its dot is not to be cut by the panel's edge.
            dot = len(curve.y) == 1
            axes.plot(
                curve.x,
                curve.y,
                color=line.color,
                linestyle=line.dash,
                linewidth=1.4,
                marker="o" if dot else None,
                clip_on=not dot,
            )
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) and max(positive) > SPREAD_OF_LOG_SCALE * min(positive):
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(TERM_NAMES.get(term, term))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True, min_n_ticks=1))


def edges_chart(example: EdgeExample, lines: Sequence[Line]) -> str:
    """The four edge distributions of one object; bars are the teacher, lines the students."""

    def plot(figure: Figure) -> None:
        draw_edges(figure.subplots(1, len(EDGE_NAMES), sharey=True), example, lines)
        spread_panels(figure)

    return draw(f"edges {example.view.stored.view.key}", 900, 150, plot)


def entropy_chart(statistics: StoreStatistics, strides: Sequence[int], colors: tuple[str, str]) -> str:
    """Entropy of the teacher's edge distributions: a panel a level, shares of each region's edges.

    Args:
        statistics: Of the store.
        strides: Of the levels, px.
        colors: Of the valuable and of the main region.
    """
    shown = [level for level in range(len(strides)) if statistics.entropy[level].any()]

    def plot(figure: Figure) -> None:
        panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
        for axes, level in zip(panels, shown, strict=False):
            _entropy_of_level(axes, statistics, level, colors)
            axes.set_title(f"P{level + 3}, stride {strides[level]}")
        panels[0].set_ylim(0, HEADROOM * largest_share(statistics))
        spread_panels(figure)

    return draw("entropy", 1120, 250, plot)


def largest_share(statistics: StoreStatistics) -> float:
    """The highest column of any entropy histogram, percent."""
    counts = statistics.entropy
    shares = 100 * counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    return float(shares.max(initial=1))


def _entropy_of_level(axes: Axes, statistics: StoreStatistics, level: int, colors: tuple[str, str]) -> None:
    for counts, color in zip(statistics.entropy[level], colors, strict=True):
        if counts.any():
            share = 100 * counts / counts.sum()
            axes.stairs(share, statistics.entropy_edges, color=color, fill=True, alpha=0.22, linewidth=0)
            axes.stairs(share, statistics.entropy_edges, color=color, linewidth=1.4)
    axes.set_xlim(0, statistics.entropy_edges[-1])
    axes.set_xlabel("entropy, nats")
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(decimals=0))


def box_points_chart(statistics: StoreStatistics, color: str) -> str:
    """Main-region points of an object over its size: median and quartiles, above the number of objects."""
    bounds = size_bounds(statistics.box_sides)
    labels = [f"{low:.0f}\N{EN DASH}{high:.0f}" for low, high in pairwise(bounds)]
    place = np.digitize(statistics.box_sides, bounds[1:-1])
    groups = [statistics.box_points[place == index] for index in range(len(labels))]

    def plot(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for x, group in enumerate(groups):
            if len(group):
                low, middle, high = np.percentile(group, (25, 50, 75))
                upper.vlines(x, low, high, color=color, linewidth=7, alpha=0.3)
                upper.plot(x, middle, "o", color=color, markersize=5)
        upper.set_title("main-region points of an object")
        quartiles = [float(np.percentile(group, 75)) for group in groups if len(group)]
        upper.set_ylim(0, HEADROOM * max(quartiles, default=1.0) or 1.0)
        lower.bar(range(len(groups)), [len(group) for group in groups], width=0.6, color="#c3c9d4")
        lower.set(title="objects in the sample", xlabel="object size: square root of its area, px")
        lower.set_xticks(range(len(labels)), labels)
        lower.yaxis.set_major_locator(mpl.ticker.MaxNLocator(2, integer=True))
        for axes in (upper, lower):
            axes.grid(visible=False, axis="x")

    return draw("box_points", 540, 330, plot)


def size_bounds(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bounds in px that part objects by size, a factor of sqrt(2) apart, at most nine groups."""
    positive = sides[sides > 0]
    if not positive.size:
        return np.array([0.0, 1.0])
    low, high = np.floor(2 * np.log2(positive.min())), np.ceil(2 * np.log2(positive.max()))
    step = max(1.0, np.ceil((high - low) / 9))
    return np.asarray(2 ** (np.arange(low, max(high, low + 1) + step, step) / 2))


def view_points_chart(statistics: StoreStatistics, colors: tuple[str, str]) -> str:
    """How many points a view keeps: histograms of main-region points and of all kept points."""

    def plot(figure: Figure) -> None:
        panels = figure.subplots(2, 1)
        series = (
            ("main-region points of a view", statistics.view_main, colors[1]),
            ("all kept points of a view", statistics.view_points, colors[0]),
        )
        for axes, (title, counts, color) in zip(panels, series, strict=True):
            axes.hist(counts, bins=count_bounds(counts), color=color, alpha=0.55)
            middle = float(np.median(counts)) if len(counts) else 0.0
            axes.axvline(middle, color=INK, linewidth=1)
            axes.set(title=f"{title}: median {middle:.0f}", xlim=(0, None))
            axes.yaxis.set_major_locator(mpl.ticker.MaxNLocator(3, integer=True))
            axes.grid(visible=False, axis="x")

    return draw("view_points", 540, 330, plot)


def count_bounds(counts: NDArray[np.int64]) -> list[float]:
    """Bounds of at most ``COUNT_BINS`` columns that hold equally many whole numbers each."""
    most = int(counts.max(initial=1))
    width = -(-(most + 1) // COUNT_BINS)
    return [bound - 0.5 for bound in range(0, most + width + 1, width)]
