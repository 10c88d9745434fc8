"""Stores of random content, written by the library itself, without a teacher and without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.codec.precision import Precision
from pipeline.core.files import lock_scratch
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, plan_schema
from pipeline.store.writer.writer import finalise, finished_partitions, init, write_partition
from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import NOT_MAIN, KeptPoints, LabeledView, SoftTargets, ViewKey

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
BINS, CLASSES, LEVELS, CELLS = 8, 4, 4, 60
MAIN_SHARE = 5
"""One point in so many is in the main region, as in real stores."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Views, what a teacher says about them, and the store that they are to become."""

    views: Sequence[LabeledView]
    targets: Sequence[SoftTargets]
    table: ViewIndex
    schema: StoreSchema


def make_plan(images: int, *, views_per_partition: int, most_points: int, chunk_rows: int = 16) -> Plan:
    """Two views of each image; every fifth view has no points, and every seventh image no boxes."""
    keys = [ViewKey(3 * image + 1, view) for image in range(images) for view in range(2)]
    views = [_make_view(key, row, most_points) for row, key in enumerate(keys)]
    table = ViewIndex.from_views(views)
    schema = plan_schema(
        table,
        bins=BINS,
        num_classes=CLASSES,
        strides=(8, 16, 32, 64),
        precision=QUANTIZED,
        views_per_partition=views_per_partition,
        fingerprint={"teacher": {"weights": "random", "reg_max": BINS - 1}, "images": images},
        provenance={"teacher": "random numbers"},
        chunk_rows=chunk_rows,
    )
    return Plan(views=views, targets=[_make_targets(view) for view in views], table=table, schema=schema)


def write_remaining(scratch: Path, output: Path, plan: Plan) -> set[int]:
    """What the stage does: lock, begin or resume, write what is missing, finalise.

    Returns:
        The partitions that were finished already.
    """
    with lock_scratch(scratch):
        init(scratch, plan.schema, plan.table)
        finished = finished_partitions(scratch)
        for index in sorted(set(range(plan.schema.partitions)) - finished):
            write_one(scratch, plan, index)
        finalise(scratch, output)
    return finished


def write_one(scratch: Path, plan: Plan, index: int) -> None:
    rows = plan.schema.partition_views(index)
    write_partition(scratch, index, plan.views[rows], plan.targets[rows])


def _make_view(key: ViewKey, row: int, most_points: int) -> LabeledView:
    rng = np.random.default_rng([key.image_id, key.view])
    boxes = 0 if key.image_id % 7 == 0 else int(rng.integers(1, 5))
    points = 0 if row % 5 == 3 else int(rng.integers(1, most_points + 1))
    cells = np.sort(rng.choice(LEVELS * CELLS, points, replace=False))
    main_gt = np.full(points, NOT_MAIN)
    if boxes:
        main_gt[::MAIN_SHARE] = rng.integers(0, boxes, len(main_gt[::MAIN_SHARE]))
    weight = np.where(main_gt == NOT_MAIN, rng.random(points) ** 3, 0).astype(np.float32)
    return LabeledView(
        key=key,
        geometry=ViewGeometry(
            original_hw=(48, 64), resized_hw=(75, 100), padded_hw=(96, 128), flip=bool(key.view)
        ),
        boxes_xyxy=rng.random((boxes, 4)).astype(np.float32),
        labels=rng.integers(0, CLASSES, boxes),
        points=KeptPoints(
            level=cells // CELLS, position=cells % CELLS, main_gt=main_gt, valuable_weight=weight
        ),
    )


def _make_targets(view: LabeledView) -> SoftTargets:
    rng = np.random.default_rng([view.key.view, view.key.image_id])
    return SoftTargets(
        edge_logits=rng.normal(0, 3, (len(view.points), 4, BINS)).astype(np.float32),
        cls_logits=rng.normal(-3, 2, (view.points.main_count, CLASSES)).astype(np.float32),
    )
