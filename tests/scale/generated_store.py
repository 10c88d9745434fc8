"""A store to measure on where there is no other: COCO-like views, and logits that compress like real ones."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.codec.logits import EDGES
from pipeline.codec.precision import Precision
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.writer.partition import quantize_partition
from pipeline.store.writer.writer import finalise, init, read_schema, write_partition
from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import NOT_MAIN, KeptPoints, LabeledView, SoftTargets, ViewKey

BINS, CLASSES, BOXES = 17, 80, 7
PRECISION = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.1)
"""As in the recipes."""
GEOMETRY = ViewGeometry(original_hw=(427, 640), resized_hw=(800, 1199), padded_hw=(800, 1216), flip=False)
LEVEL_STRIDES = {8: 0.62, 16: 0.24, 32: 0.1, 64: 0.03, 128: 0.01}
"""Each level's share of a view's kept points."""
MAIN_SHARE = 65 / 900
"""Main-region points of kept points, on COCO."""
RUN_ENDS = 0.08
"""Share of points that are the last of a run of neighboring cells: a box is about 12 cells wide."""
TEMPLATES = 64
"""Different views; they come again and again under other keys."""


def generate_store(folder: Path, views: int, points: int) -> Path:
    """A whole store with small partitions; see :func:`begin`."""
    begin(folder, views, points, views_per_partition=64)
    write(folder, points)
    finish(folder, folder / "targets.zarr")
    return folder / "targets.zarr"


def begin(folder: Path, views: int, points: int, views_per_partition: int) -> str:
    """The table of all views, two an image, of 0.5 to 1.5 times ``points`` kept points; the empty store."""
    table = ViewIndex.from_views(keyed(row, points) for row in range(views))
    layout = StoreSchema(
        bins=BINS,
        num_classes=CLASSES,
        strides=tuple(LEVEL_STRIDES),
        precision=PRECISION,
        views_per_partition=views_per_partition,
        fingerprint={"generated": {"views": views, "points": points}},
        provenance={"generated": "to measure"},
    )
    init(folder / "scratch", fit_schema(layout, table), table)
    return f"{views:,} views, {int(table.counts[:, 0].sum()):,} points"


def write(folder: Path, points: int) -> str:
    """Quantize and write every partition."""
    schema = read_schema(folder / "scratch")
    targets = [soft_targets(labeled_view(number, points)) for number in range(TEMPLATES)]
    for index in range(schema.partitions):
        numbers = range(schema.views)[schema.partition_views(index)]
        views = [keyed(row, points) for row in numbers]
        rows = quantize_partition(schema, views, [targets[row % TEMPLATES] for row in numbers])
        write_partition(folder / "scratch", index, rows)
    return f"{schema.partitions} partitions"


def finish(folder: Path, store: Path) -> str:
    """Check all records and move the store to its place."""
    finalise(folder / "scratch", store)
    files = [path for path in store.rglob("*") if path.is_file()]
    return f"{len(files):,} files, {sum(path.stat().st_size for path in files) / 1e9:.2f} GB"


def keyed(row: int, points: int) -> LabeledView:
    return replace(labeled_view(row % TEMPLATES, points), key=ViewKey(row // 2, row % 2))


@cache
def labeled_view(number: int, points: int) -> LabeledView:
    """The view of image ``number``, drawn from its number alone."""
    rng = np.random.default_rng([number, 0])
    level, position = _cells(rng, int(rng.integers(points // 2, points + points // 2 + 1)))
    main = rng.random(len(level)) < MAIN_SHARE
    weight = np.where(main, 0, 0.6 * rng.random(len(level)) ** 3).astype(np.float32)
    corners = np.sort(rng.random((BOXES, 2, 2)) * GEOMETRY.resized_hw[::-1], axis=1)
    main_gt = np.where(main, rng.integers(0, BOXES, len(level)), NOT_MAIN)
    labels = rng.integers(0, CLASSES, BOXES)
    return LabeledView(
        key=ViewKey(number, 0),
        geometry=GEOMETRY,
        boxes_xyxy=corners.reshape(BOXES, 4).astype(np.float32),
        labels=labels,
        points=KeptPoints(level=level, position=position, main_gt=main_gt, valuable_weight=weight),
    )


def soft_targets(labeled: LabeledView) -> SoftTargets:
    """Edge logits with one peak and ragged tails, class logits far below zero but for the box's class."""
    rng = np.random.default_rng([labeled.key.image_id, 1])
    edges, mains = (len(labeled.points), EDGES, 1), labeled.points.main_count
    distance = np.abs(np.arange(BINS, dtype=np.float32) - rng.uniform(0.5, BINS - 4, edges))
    edge_logits = -rng.gamma(2.0, 0.2, edges) * distance**1.2
    edge_logits += rng.normal(0, 0.2, edge_logits.shape)
    cls_logits = rng.normal(-6.2, 1.3, (mains, CLASSES))
    own = labeled.labels[labeled.points.main_gt[labeled.points.main_region]]
    cls_logits[np.arange(mains), own] = rng.normal(0, 1, mains)
    return SoftTargets(edge_logits=edge_logits.astype(np.float32), cls_logits=cls_logits.astype(np.float32))


def _cells(rng: Generator, points: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Level and position of ``points`` cells in runs of neighbors, ascending."""
    levels = np.sort(rng.choice(len(LEVEL_STRIDES), points, p=list(LEVEL_STRIDES.values())))
    positions = []
    for level, stride in enumerate(LEVEL_STRIDES):
        width, count = GEOMETRY.padded_hw[1] // stride, np.count_nonzero(levels == level)
        gaps = np.where(rng.random(count) < RUN_ENDS, rng.integers(2, width + 2, count), 1)
        positions.append(np.cumsum(gaps))
    return levels, np.concatenate(positions)
