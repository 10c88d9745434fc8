"""Plan, write and finalise a store of the teacher's outputs."""

import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.cache import writer
from pipeline.cache.durable import lock_scratch
from pipeline.cache.fingerprint import digest
from pipeline.cache.records import PlannedView, ViewKey
from pipeline.cache.schema import StoreSchema
from pipeline.cache.table import ViewTable, plan_schema
from pipeline.codec.precision import Precision
from pipeline.data.views import ViewsConfig
from pipeline.errors import CacheError, ConfigError
from pipeline.planning import RegionsConfig, ViewPlan
from pipeline.teacher.soft_targets import Teacher

T = TypeVar("T")

Progress = Callable[[Iterable[T], int, str], Iterable[T]]
"""Wraps an iterable, given its length and a label, to show how far it is."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """What the store holds, and how finely."""

    views: ViewsConfig
    regions: RegionsConfig
    precision: Precision
    views_per_partition: int
    """Views in one unit of work, of commit and of repair."""
    batch_size: int
    """Views in one forward pass of the teacher; part of the fingerprint, for it can change last bits."""

    def __post_init__(self) -> None:
        for name in ("views_per_partition", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, but got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class StorePlan:
    """Everything about a store that is known before its teacher runs."""

    schema: StoreSchema
    table: ViewTable


def plan_store(
    plan: ViewPlan,
    config: CacheConfig,
    *,
    num_classes: int,
    bins: int,
    fingerprint: dict[str, Any],
    provenance: dict[str, Any],
    progress: Progress[PlannedView],
) -> StorePlan:
    """Find the regions of every view; keeps counts and boxes, not points."""
    table = ViewTable.from_views(progress(plan, len(plan.keys()), "plan"))
    schema = plan_schema(
        table,
        bins=bins,
        num_classes=num_classes,
        strides=plan.strides,
        precision=config.precision,
        views_per_partition=config.views_per_partition,
        fingerprint=fingerprint,
        provenance=provenance,
    )
    return StorePlan(schema=schema, table=table)


EDGE_BITS_PER_CODE = 8.0
"""An edge code is a byte before compression; after it 5.9 bits on ``shapes``, fewer with a coarser step."""

REGION_BYTES_PER_POINT = 5.0
"""Upper estimate of position, assignment and weight after compression (3.1 on ``shapes``)."""

CLS_BYTES_PER_CODE = 2.0
"""A class code is 16 bits before compression; after it 0.9 bytes on ``shapes``."""


def expected_bytes(planned: StorePlan) -> int:
    """What the store takes at most: what compression wins is not counted on."""
    points, main, _ = (int(total) for total in planned.table.counts.sum(axis=0))
    schema = planned.schema
    if schema.precision.lossless:
        per_point, per_class = 4.0 * 4 * schema.bins, 4.0
    else:
        per_point, per_class = 4 * schema.bins * EDGE_BITS_PER_CODE / 8, CLS_BYTES_PER_CODE
    return int(points * (per_point + REGION_BYTES_PER_POINT) + main * schema.num_classes * per_class)


def require_disk(planned: StorePlan, folder: Path) -> None:
    """Refuse before the teacher starts if the store cannot fit."""
    needed, free = expected_bytes(planned), shutil.disk_usage(folder).free
    points = int(planned.table.counts[:, 0].sum())
    logger.info(
        "plan: %d views, %d kept points, at most about %.1f MB, %.1f GB free",
        planned.schema.views,
        points,
        needed / 1e6,
        free / 1e9,
    )
    if needed > free:
        raise CacheError(
            f"{folder}: expected room for about {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free; "
            "free some, or choose fewer views or a coarser precision"
        )


def write_store(
    planned: StorePlan,
    plan: ViewPlan,
    teacher: Teacher,
    *,
    scratch_root: Path,
    output: Path,
    progress: Progress[int],
) -> None:
    """Run the teacher over all partitions that are not finished yet, then move the store to ``output``.

    Raises:
        CacheError: another run writes the same store, or partitions do not match the plan.
        TeacherError: an output is not finite.
    """
    scratch = scratch_root / digest(planned.schema.fingerprint)[:16]
    with lock_scratch(scratch):
        writer.init(scratch, planned.schema, planned.table)
        finished = writer.finished_partitions(scratch)
        remaining = [index for index in range(planned.schema.partitions) if index not in finished]
        if finished:
            logger.info(
                "resuming: %d of %d partitions were finished", len(finished), planned.schema.partitions
            )
        for index in progress(remaining, len(remaining), "cache"):
            views = partition_views(planned, plan, index)
            writer.write_partition(scratch, index, views, list(teacher.run(views)))
        writer.finalise(scratch, output)


def partition_views(planned: StorePlan, plan: ViewPlan, index: int) -> list[PlannedView]:
    """The planned views of one partition, found again: cheaper than keeping all points of all views."""
    rows = planned.schema.partition_views(index)
    keys: list[ViewKey] = [planned.table.key(row) for row in range(rows.start, rows.stop)]
    return [plan.plan(plan.manifest.by_id[key.image_id], key.view) for key in keys]
