"""``ldp store show`` and ``ldp picture``: a stored view, or what distillation transfers at one object."""

import argparse
import io
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pipeline.cli.options import RECIPE, argument, command, output_file
from pipeline.cli.store import STORE, find_store
from pipeline.core.errors import CacheError, DatasetError, listed
from pipeline.core.files import atomic_path, write_atomically
from pipeline.core.paths import RunPaths, find_recipe, load_students, run_paths
from pipeline.core.progress import counted
from pipeline.detector.device import device
from pipeline.report import drawing
from pipeline.report.drawing import EDGE_NAMES, MUTED, STYLE, TEACHER, TRUTH, VALUABLE
from pipeline.report.page import detector_lines
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
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.types import ViewKey

POINTS_PER_INCH = 72
PNG_DPI = 110
PICTURE_INCHES, PICTURE_DPI = (12.0, 2.3), 100
MAX_OBJECTS = 4
"""Objects whose edge distributions are drawn."""
MAX_COLUMNS = 4
"""More panels of a view stand in two rows."""
SHEET_WIDTH, MAX_PANEL_HEIGHT = 13.4, 7.2
OBJECT_HEIGHT, HEAD_HEIGHT, TITLE_HEIGHT, AXIS_HEIGHT = 1.75, 1.1, 0.35, 0.4
"""Inches; the head counts the legend in."""

SHEET: Final[Any] = {
    **STYLE,
    "font.size": 9.5,
    "axes.titlesize": 10.0,
    "axes.titlepad": 6.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "figure.facecolor": "white",
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
    key = _choose_view(store, arguments.image_id, arguments.view)
    manifest, pixels, origin = _own_manifest(store), None, "none, drawn on gray"
    if manifest:
        try:
            image = read_image(*manifest.image_file(manifest.image(key.image_id)))
            pixels = apply_view(image, store.geometry(key), store.conventions.preprocessing)
            origin = str(manifest.image_path(manifest.image(key.image_id)))
        except DatasetError as error:
            logger.info("%s", error)
    output: Path = arguments.output or Path(f"{key.image_id}_v{key.view}.png")
    write_atomically(output, draw_view(ShownView(store, key, pixels)))
    logger.info("pixels: %s; wrote %s", origin, output)


def _choose_view(store: TargetStore, image_id: int, view: int | None) -> ViewKey:
    views = store.views(image_id)
    if not views:
        known = sorted({key.image_id for key in store.keys})
        raise CacheError(
            f"{store.path}: expected the id of one of its {len(known):,} images ({listed(known)}), "
            f"but got {image_id}"
        )
    if view is not None and view not in views:
        raise CacheError(f"expected one of the views {listed(views)} of image {image_id}, but got {view}")
    return ViewKey(image_id, views[0] if view is None else view)


def _own_manifest(store: TargetStore) -> Manifest | None:
    """The manifest of the store's run, if it is of the very images that the store was made from."""
    folder = RunPaths(store.path.parent.parent)
    path = folder.manifest("train")
    if not path.is_file():
        logger.info("%s is not there: no image is known from it", path)
        return None
    manifest = read_split(folder, "train")
    if store.fingerprint.get("images") != manifest.images_sha256:
        logger.info("%s is of other images than the store's, and not used", path)
        return None
    return manifest


def draw_view(view: ShownView) -> bytes:
    """The picture as a PNG file: the boxes and each level's points side by side, below them some objects."""
    examples = choose_objects(view)
    levels = range(len(view.pyramid.strides) if len(view.level) else 0)
    count, (height, width) = 1 + len(levels), view.geometry.resized_hw
    columns = count if count <= MAX_COLUMNS else -(-count // 2)
    rows = -(-count // columns)
    inches = min(SHEET_WIDTH / columns / width, MAX_PANEL_HEIGHT / height)
    heights = [rows * (height * inches + TITLE_HEIGHT)]
    heights += [OBJECT_HEIGHT * len(examples) + AXIS_HEIGHT] if examples else []
    with mpl.rc_context(SHEET):
        figure = Figure(figsize=(SHEET_WIDTH, HEAD_HEIGHT + sum(heights)), layout="constrained")
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        whole, *panels = parts[0].subplots(rows, columns, squeeze=False).ravel()
        _draw_whole(whole, view, examples, inches * POINTS_PER_INCH)
        for level, axes in zip(levels, panels, strict=False):
            _draw_level(axes, view, level, inches * POINTS_PER_INCH)
        for axes in panels[len(levels) :]:
            axes.set_axis_off()
        if examples:
            _draw_objects(parts[1], examples)
        figure.suptitle(_title(view), x=0.01, ha="left", fontsize=13)
        figure.legend(handles=_legend(), loc="outside lower left", ncols=4, frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return content.getvalue()


def choose_objects(view: ShownView) -> list[EdgeExample]:
    """Objects with points in the main region, spread from the largest to the smallest; from left to right."""
    examples = edge_examples(view)
    by_size = sorted(examples, key=lambda example: -np.prod(example.box_xyxy[2:] - example.box_xyxy[:2]))
    return sorted(spread(by_size, MAX_OBJECTS), key=lambda example: float(example.box_xyxy[0]))


def _title(view: ShownView) -> str:
    (height, width), points = view.geometry.resized_hw, view.stored.view.points
    kept = (
        f"{counted(len(points), 'kept point')}: {points.main_count:,} in the main region, "
        f"{np.count_nonzero(points.valuable_weight):,} in the valuable region"
        if len(points)
        else "no point is kept"
    )
    boxes = "1 box" if len(view.boxes) == 1 else f"{len(view.boxes)} boxes"
    return f"{view.title}, view {view.key.view}: {width} x {height} px, {boxes}; {kept}"


def _legend() -> list[Artist]:
    line = partial(Line2D, [], [])
    return [
        line(label="ground truth, a color an object", color=MUTED, linewidth=1.8),
        line(label="main-region point", color=MUTED, marker="o", linestyle="", markersize=5),
        *(
            Patch(facecolor=VALUABLE, alpha=drawing.opacity(weight), label=f"valuable, weight {text}")
            for weight, text in ((0.1, "0.1"), (0.3, "0.3"), (0.5, "0.5 and more"))
        ),
        line(label="teacher: point, box", color=TEACHER, linestyle="--", marker="+", markersize=9),
        line(label="true distance", color=TRUTH, linewidth=1.6, linestyle="--"),
    ]


def _draw_whole(axes: Axes, view: ShownView, examples: Sequence[EdgeExample], scale: float) -> None:
    drawing.draw_view(axes, view)
    for example in examples:
        drawing.draw_teacher(axes, example)
    # The shown objects come first: their labels always have room.
    letters = {example.box: letter for letter, example in zip(ascii_uppercase, examples, strict=False)}
    others = [box for box in range(len(view.labels)) if box not in letters]
    labelled = [*letters, *(others if len(view.labels) <= drawing.MAX_BOXES else [])]
    names = [view.class_names[int(view.labels[box])] for box in labelled]
    texts = [f"{letters.get(box, '')} {name}".strip() for box, name in zip(labelled, names, strict=True)]
    drawing.draw_labels(
        axes, view.boxes[labelled], [drawing.class_color(box) for box in labelled], texts, scale
    )
    axes.set_title("ground truth, and what the teacher predicts" if examples else "the view")
    axes.set_anchor("NW")


def _draw_level(axes: Axes, view: ShownView, level: int, scale: float) -> None:
    drawing.draw_regions(axes, view, level, scale)
    main, valuable = drawing.count_regions(view, level)
    kept = f"{main:,} main, {valuable:,} valuable" if main or valuable else "nothing kept"
    axes.set_title(f"P{level + 3}, stride {view.pyramid.strides[level]}: {kept}")
    axes.set_anchor("NW")


def _draw_objects(part: SubFigure, examples: Sequence[EdgeExample]) -> None:
    """A row an object: its surroundings, and the four distributions."""
    grid = part.subplots(len(examples), 5, squeeze=False, width_ratios=(1.0, 1.6, 1.6, 1.6, 1.6))
    for letter, example, row in zip(ascii_uppercase, examples, grid, strict=False):
        drawing.draw_object(row, example, [])
        row[0].set_title(f"{letter} {example.class_name} {example.score:.2f}, {example.level}")
    for axes in grid[-1, 1:]:
        axes.set_xlabel("distance from the point, strides")


@command(
    RECIPE, argument("--output", type=output_file(".png"), default=Path("edges.png"), metavar="FILE.png")
)
def picture_command(arguments: argparse.Namespace) -> None:
    """Draws the edge distributions of the teacher and of the plain and the distilled student at one object.

    It is the object of the sampled views whose edges differ most in sharpness.
    """
    params = find_recipe(arguments.recipe)
    folder = run_paths(params)
    students = load_students(StudentConfig, params)
    runs = [read_run(folder, name, student) for name, student in students.items()]
    pair, train = choose_pair(runs), read_split(folder, "train")
    examples = choose_examples(sample_views(folder, TargetStore.open(folder.store), train, pair, device()))
    if not examples:
        raise CacheError(f"{folder.store}: expected a view with a large enough object, but there is none")
    example = max(examples, key=lambda example: example.contrast)
    lines = [line for line in detector_lines(runs) if line.name in example.students]
    with mpl.rc_context(SHEET):
        figure = Figure(figsize=PICTURE_INCHES, layout="constrained")
        panels = figure.subplots(1, 1 + len(EDGE_NAMES))
        drawing.draw_object(panels, example, lines)
        for axes in panels[1:]:
            axes.set_xlabel("strides from the point")
        handles = [Patch(color=TEACHER, label="teacher, from the store", alpha=0.35)]
        handles += [Patch(color=line.color, label=line.name) for line in lines]
        figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False)
        with atomic_path(arguments.output) as partial:
            figure.savefig(partial, format="png", dpi=PICTURE_DPI, metadata={"Software": None})
    logger.info("%s of %s; wrote %s", example.class_name, example.view.title, arguments.output)
