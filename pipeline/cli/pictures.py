"""``ldp store show`` and ``ldp picture``: a stored view, or what distillation transfers at one object."""

import argparse
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from pipeline.cli.options import RECIPE, argument, command, output_file
from pipeline.cli.store import STORE, find_store
from pipeline.core.errors import CacheError, DatasetError, listed
from pipeline.core.files import atomic_path
from pipeline.core.paths import RunPaths, find_recipe, load_students, run_paths
from pipeline.core.progress import counted
from pipeline.detector.device import device
from pipeline.report import drawing
from pipeline.report.drawing import EDGE_NAMES, MUTED, STYLE, TEACHER, TRUTH, VALUABLE
from pipeline.report.page import detector_colors
from pipeline.report.runs import choose_pair, read_run
from pipeline.report.shown_views import (
    EdgeExample,
    ShownView,
    choose_examples,
    edge_examples,
    sample_views,
    spread,
)
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.views.images import apply_view, read_image
from pipeline.views.manifest import read_split
from pipeline.views.types import ViewKey

POINTS_PER_INCH = 72
LETTERS = "ABCD"
"""Of the objects whose edge distributions are drawn."""
PANEL_INCHES = 3.4
"""Width of a panel of a sheet, and at most its height."""
OBJECT_HEIGHT, HEAD_HEIGHT, TITLE_HEIGHT = 1.75, 1.5, 0.35
"""Inches; the head counts the legend in."""

SHEET: Final[Any] = {
    **STYLE,
    "font.size": 9.5,
    "axes.titlesize": 10.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.1,
}
"""What differs from the page's charts: all is on one sheet."""

logger = logging.getLogger(__name__)


@command(
    argument("image_id", type=int, metavar="IMAGE_ID"),
    STORE,
    argument("--view", type=int, metavar="N", help="number of the view; default: its first"),
    argument("--output", type=output_file(".png"), metavar="FILE.png", help="default: IMAGE_ID_vN.png, here"),
)
def show_command(arguments: argparse.Namespace) -> None:
    """Draws one stored view as a PNG.

    It shows the boxes; the points of the main and of the valuable region, level by level; and for a few
    objects the teacher's four edge distributions at the main-region point where it is surest of the object's
    class, with the box that they decode to. Where the run's images are not here, all is drawn on gray.
    """
    store = TargetStore.open(find_store(arguments.store)[0])
    views = store.views(arguments.image_id)
    if not views:
        expected = f"{store.path}: expected one of its images {listed(store.image_ids)}"
        raise CacheError(f"{expected}, but got {arguments.image_id}")
    key = ViewKey(arguments.image_id, views[0] if arguments.view is None else arguments.view)
    output: Path = arguments.output or Path(f"{key.image_id}_v{key.view}.png")
    draw_view(ShownView(store, key, _read_pixels(store, key)), output)
    logger.info("wrote %s", output)


def _read_pixels(store: TargetStore, key: ViewKey) -> Tensor | None:
    """Pixels of a view, if the very images that the store was made from are here."""
    try:
        manifest = read_split(RunPaths(store.path.parent.parent), "train")
        if store.fingerprint.get("images") != manifest.identity()["images"]:
            raise DatasetError(f"{manifest.root}: expected the store's images, but got others")
        image = read_image(*manifest.image_file(manifest.image(key.image_id)))
        return apply_view(image, store.geometry(key), store.conventions.preprocessing)
    except DatasetError as error:
        logger.info("drawn on gray: %s", error)
        return None


def draw_view(view: ShownView, output: Path) -> None:
    """Write a PNG file: the boxes and each level's points side by side, below them some objects."""
    examples, (height, width) = choose_objects(view), view.geometry.resized_hw
    strides, inches = view.pyramid.strides, PANEL_INCHES / max(height, width)
    heights = [height * inches + TITLE_HEIGHT, OBJECT_HEIGHT * max(1, len(examples))]
    size = (PANEL_INCHES * (1 + len(strides)), HEAD_HEIGHT + sum(heights))
    with mpl.rc_context(SHEET):
        figure = Figure(figsize=size, layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        whole, *panels = upper.subplots(1, 1 + len(strides))
        _draw_whole(whole, view, examples, inches * POINTS_PER_INCH)
        for level, (axes, stride) in enumerate(zip(panels, strides, strict=True)):
            drawing.draw_regions(axes, inches * POINTS_PER_INCH, view, level)
            main, valuable = drawing.count_regions(view, level)
            axes.set_title(f"P{level + 3}, stride {stride}: {main:,} main, {valuable:,} valuable")
        if examples:
            titles = (f"{letter} {e.class_name} {e.score:.2f}, {e.level}" for letter, e in examples.items())
            _draw_objects(lower, dict(zip(titles, examples.values(), strict=True)), {})
        objects, kept = counted(len(view.boxes), "object"), counted(len(view.level), "kept point")
        title = f"{view.title}, view {view.key.view}: {width} x {height} px, {objects}, {kept}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        figure.legend(handles=_legend(), loc="outside lower left", ncols=5, frameon=False)
        _save(figure, output)


def _save(figure: Figure, output: Path) -> None:
    with atomic_path(output) as file:
        figure.savefig(file, format="png", dpi=100, metadata={"Software": None})


def choose_objects(view: ShownView) -> dict[str, EdgeExample]:
    """Objects with points in the main region, spread from the largest to the smallest; from left to right."""
    examples = edge_examples(view)
    by_size = sorted(examples, key=lambda example: -np.prod(example.box_xyxy[2:] - example.box_xyxy[:2]))
    chosen = sorted(spread(by_size, len(LETTERS)), key=lambda example: float(example.box_xyxy[0]))
    return dict(zip(LETTERS, chosen, strict=False))


def _legend() -> list[Artist]:
    line = partial(Line2D, [], [])
    return [
        line(label="ground truth, a color an object", color=MUTED, linewidth=1.8),
        line(label="main-region point", color=MUTED, marker="o", linestyle="", markersize=5),
        Patch(facecolor=VALUABLE, alpha=drawing.opacity(0.3), label="valuable region, by weight"),
        line(label="teacher: point, box", color=TEACHER, linestyle="--", marker="+", markersize=9),
        line(label="true distance", color=TRUTH, linewidth=1.6, linestyle="--"),
    ]


def _draw_whole(axes: Axes, view: ShownView, examples: Mapping[str, EdgeExample], scale: float) -> None:
    drawing.draw_view(axes, scale, view)
    for example in examples.values():
        drawing.draw_teacher(axes, example)
    # The shown objects come first: their labels always have room.
    letters = {example.box: f"{letter} " for letter, example in examples.items()}
    boxes = sorted(range(len(view.boxes)), key=lambda box: box not in letters)
    texts = [letters.get(box, "") + view.class_names[int(view.labels[box])] for box in boxes]
    drawing.draw_labels(axes, view.boxes[boxes], [drawing.class_color(box) for box in boxes], texts, scale)
    axes.set_title("ground truth, and what the teacher predicts" if examples else "the view")


def _draw_objects(part: FigureBase, examples: Mapping[str, EdgeExample], colors: Mapping[str, str]) -> None:
    """A row an object, by its title: its surroundings, and the four distributions."""
    grid = part.subplots(len(examples), 1 + len(EDGE_NAMES), squeeze=False)
    for row, (title, example) in zip(grid, examples.items(), strict=True):
        drawing.draw_object(example, colors, row)
        row[0].set_title(title)
    for axes in grid[-1, 1:]:
        axes.set_xlabel("strides from the point")


@command(
    RECIPE, argument("--output", type=output_file(".png"), default=Path("edges.png"), metavar="FILE.png")
)
def picture_command(arguments: argparse.Namespace) -> None:
    """Draws edge distributions of teacher and students where an object's differ most in sharpness."""
    params = find_recipe(arguments.recipe)
    folder = run_paths(params)
    runs = [read_run(folder, *student) for student in load_students(StudentConfig, params).items()]
    store, names = TargetStore.open(folder.store), [run.name for run in choose_pair(runs)]
    examples = choose_examples(sample_views(folder, store, read_split(folder, "train"), names, device()))
    if not examples:
        raise CacheError(f"{folder.store}: expected a view with a large enough object, but there is none")
    example = max(examples, key=lambda example: example.contrast)
    colors = detector_colors(runs)
    with mpl.rc_context(SHEET):
        figure = Figure(figsize=(12.0, 2.3), layout="constrained")
        _draw_objects(figure, {"": example}, colors)
        handles = [Patch(color=TEACHER, label="teacher, from the store", alpha=0.35)]
        handles += [Patch(color=colors[name], label=name) for name in example.students]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False)
        _save(figure, arguments.output)
    logger.info("%s of %s; wrote %s", example.class_name, example.view.title, arguments.output)
