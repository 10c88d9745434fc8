"""Charts and pictures of the page as ``<img>`` elements."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.ops import box_convert

from pipeline.core.paths import RunPaths
from pipeline.report import drawing
from pipeline.report.drawing import STYLE, draw_object
from pipeline.report.runs import Run, result_of
from pipeline.report.shown_views import EdgeExample, ShownView, spread
from pipeline.views.images import read_image
from pipeline.views.manifest import Manifest

PX_PER_INCH = 72
"""Matplotlib's points: as shown, a point is a pixel."""
PIXEL_RATIO = 2
"""Pixels of an embedded picture for each px that it is shown at."""
CHART_PX, REGION_PX, GALLERY_PX, GAP_PX = 1120.0, 250.0, 1082.0, 16.0
"""As shown: width of a chart, long edge of a picture of regions, width of a row of images, space in it."""
MAX_COLUMNS, SHOWN_IMAGES = 4, 5

TRUE = "ground truth"

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
"""Loss terms in words, in the order of their panels."""


def draw_picture(
    size_hw: tuple[int, int], shown: float, label: str, plot: Callable[[Axes, float], None]
) -> Markup:
    """Draw over pixels of ``size_hw``, ``shown`` px long; ``plot`` gets axes and the shown px of a pixel."""
    scale, (height, width) = shown / max(size_hw), size_hw
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width * scale / PX_PER_INCH, height * scale / PX_PER_INCH))
        axes = figure.add_axes((0, 0, 1, 1))
        plot(axes, scale)
        axes.set_axis_off()
        return _embed(figure, label)


def draw_panels(
    label: str, height: float, grid: tuple[int, int], draw: Callable[[Sequence[Axes]], None], **subplots: Any
) -> Markup:
    """Draw on the panels of a chart of ``grid`` rows and columns, ``height`` px each; some may stay empty."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(CHART_PX / PX_PER_INCH, height * grid[0] / PX_PER_INCH))
        # The constrained layout is not the same to the last bit each time.
        figure.set_layout_engine("tight", pad=0.3, w_pad=1.5, h_pad=1.0)
        panels = figure.subplots(*grid, squeeze=False, **subplots).ravel()
        draw(panels)
        for axes in panels:
            axes.axison = axes.has_data()
        return _embed(figure, label)


def _embed(figure: Figure, label: str) -> Markup:
    content, (width, height) = BytesIO(), figure.get_size_inches() * PX_PER_INCH
    figure.savefig(content, format="webp", dpi=PIXEL_RATIO * PX_PER_INCH, pil_kwargs={"quality": 85})
    data = base64.b64encode(content.getvalue()).decode()
    element = Markup('<img src="data:image/webp;base64,{}" alt="{}" width="{:.0f}" height="{:.0f}">')
    return element.format(data, label, width, height)


def precision_recall_chart(runs: Sequence[Run], colors: Mapping[str, str]) -> Markup:
    """A panel for every IoU threshold, with a line a run, in its color by name."""
    thresholds = list(dict.fromkeys(iou for run in runs for iou in run.precision_recall))

    def draw(panels: Sequence[Axes]) -> None:
        for axes, iou in zip(panels, thresholds, strict=True):
            for run in runs:
                if curve := run.precision_recall.get(iou):
                    label = f"{run.name}  {100 * float(np.mean(curve.y)):.1f}"
                    axes.plot(curve.x, curve.y, color=colors[run.name], label=label)
            axes.legend(loc="best", labelcolor="linecolor", handlelength=0, handletextpad=0, frameon=False)
            title = f"precision at IoU \N{GREATER-THAN OR EQUAL TO} {iou}"
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", title=title)

    return draw_panels("precision over recall", 330, (1, len(thresholds)), draw, sharey=True)


def loss_chart(runs: Sequence[Run], colors: Mapping[str, str]) -> Markup | None:
    """A panel for every loss term that is not always 0; ``None`` if no run was long enough for a point."""
    terms = {term for run in runs for term, curve in run.losses.items() if any(curve.y)}
    shown = [term for term in TERM_NAMES if term in terms]

    def draw(panels: Sequence[Axes]) -> None:
        for axes, term in zip(panels, shown, strict=False):
            for run in runs:
                if curve := run.losses.get(term):
                    # A single row has no line to draw; its dot is not to be cut by the panel's edge.
                    dot: Any = {"marker": "o", "clip_on": False} if len(curve.y) == 1 else {}
                    axes.plot(curve.x, curve.y, color=colors[run.name], linewidth=1.4, **dot)
            axes.set_ylim(bottom=0)
            axes.set_title(TERM_NAMES[term])
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True, min_n_ticks=1))

    grid = -(-len(shown) // MAX_COLUMNS), MAX_COLUMNS
    return draw_panels("loss terms over the training step", 215, grid, draw) if shown else None


def example_chart(example: EdgeExample, colors: Mapping[str, str]) -> Markup:
    """An object and its four edge distributions."""
    label, draw = f"{example.class_name} of {example.view.title}", partial(draw_object, example, colors)
    return draw_panels(label, 165, (1, 5), draw, width_ratios=(0.8, 1, 1, 1, 1))


def region_picture(view: ShownView, level: int | None, label: str) -> Markup:
    """The regions of a level of a view; without one, the boxes."""
    draw = drawing.draw_view if level is None else partial(drawing.draw_regions, level=level)
    return draw_picture(view.geometry.resized_hw, REGION_PX, label, partial(draw, view=view))


class ShownImage(NamedTuple):
    """One validation image."""

    pixels: Tensor
    """``ByteTensor[3, H, W]``."""
    drawn: Mapping[str, Sequence[Mapping[str, Any]]]
    """``category_id``, ``bbox`` (x, y, w, h px) and ``score`` of as many detections as there are objects, the
    best first, by detector; of the objects, without score, by :data:`TRUE`."""


def show_images(manifest: Manifest, folder: RunPaths, names: Sequence[str]) -> list[ShownImage]:
    """Evenly spread images of three to eight objects, or of all, with detections; see :func:`result_of`."""
    results = {}
    for name in names:
        with result_of(folder.evaluation(name) / "detections.json") as text:
            results[name] = sorted(json.loads(text), key=lambda row: -float(row["score"]))
    several = [r for r in manifest.images if 3 <= sum(not each.iscrowd for each in r.annotations) <= 8]
    images = []
    for record in spread(several or list(manifest.images), SHOWN_IMAGES):
        objects = [each for each in record.annotations if not each.iscrowd]
        drawn = {TRUE: [{"category_id": each.category_id, "bbox": each.box_xywh} for each in objects]}
        for name, rows in results.items():
            drawn[name] = [row for row in rows if row["image_id"] == record.image_id][: len(drawn[TRUE])]
        images.append(ShownImage(read_image(*manifest.image_file(record)), drawn))
    return images


def image_picture(image: ShownImage, name: str, manifest: Manifest, label: str) -> Markup:
    """The detections of a detector over dashed true boxes, or these alone."""
    rows, boxes = image.drawn[name], _boxes_xyxy(image.drawn[name])
    labels = [manifest.labels[row["category_id"]] for row in rows]
    colors = [drawing.class_color(label) for label in labels]
    texts = [manifest.categories[label].name for label in labels]
    if name != TRUE:
        texts = [f"{text} {row['score']:.2f}" for text, row in zip(texts, rows, strict=True)]

    def plot(axes: Axes, scale: float) -> None:
        drawing.draw_pixels(axes, image.pixels)
        for box in _boxes_xyxy(image.drawn[TRUE]).tolist():
            drawing.draw_box(axes, box, "white", 1.2, "--")
        for box, color in zip(boxes.tolist(), colors, strict=True):
            drawing.draw_box(axes, box, color)
        drawing.draw_labels(axes, boxes.numpy(), colors, texts, scale)

    height, width = image.pixels.shape[1:]
    return draw_picture((height, width), (GALLERY_PX + GAP_PX) / len(image.drawn) - GAP_PX, label, plot)


def _boxes_xyxy(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    return box_convert(torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4), "xywh", "xyxy")
