"""Stores of random content, as large as an experiment needs, without a teacher and without torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))  # as pytest does, where this is run as a script

import numpy as np
from store_cases import Plan, make_view, plan_of, write_one

from pipeline.codec.dense import DensePrecision
from pipeline.core.files import lock_scratch
from pipeline.store.writer.writer import finalise, finished_partitions, init
from pipeline.views.types import ViewKey

__all__ = ["Plan", "make_plan", "write_one", "write_remaining"]


def make_plan(images: int, *, views_per_partition: int, most_points: int, chunk_rows: int = 16) -> Plan:
    """Two views of each image; every fifth view has no points, and every seventh image no boxes."""
    rng = np.random.default_rng(images)
    keys = [ViewKey(3 * image + 1, view) for image in range(images) for view in range(2)]
    points = [0 if row % 5 == 3 else int(rng.integers(1, most_points + 1)) for row in range(len(keys))]
    boxes = [0 if key.image_id % 7 == 0 else int(rng.integers(1, 5)) for key in keys]
    views = [make_view(*row) for row in zip(keys, points, boxes, strict=True)]
    return plan_of(
        views, views_per_partition=views_per_partition, chunk_rows=chunk_rows, dense=DensePrecision()
    )


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
