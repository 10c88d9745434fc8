"""What is known of a store before its teacher runs: its views, its arrays, and what it will take on the disk.

Bits per code are the higher of two measured ones (``pipeline/codec/README.md``), of a COCO detector of 8 bins
and the 17-bin teacher of ``shapes``; halving a step adds one. The estimate is 0-40 % too large, the more so
the coarser the steps.
"""

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.codec.logits import EDGES, edge_columns
from pipeline.core.errors import CacheError
from pipeline.core.files import digest
from pipeline.core.prefetch import loading_pool
from pipeline.core.progress import describe_bytes, show_progress
from pipeline.detector.model import ModelSpec
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.attributes import read_attributes
from pipeline.store.format.schema import DENSE, DENSE_CHUNK_ROWS, DENSE_CLASSES, StoreSchema, sharded_specs
from pipeline.store.format.table import ViewIndex, fit_schema, position_counts
from pipeline.store.writer import writer
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor

logger = logging.getLogger(__name__)

VIEWS_PER_RUN = 512
PROCESSES_FROM_VIEWS = 20_000
"""The regions of fewer are found by threads before processes would have begun."""

EDGE_BITS_AT, CLS_BITS_AT = (0.04, 6.2), (0.03, 8.8)
"""Step, and bits of a code at that step."""
REGION_BYTES = 2.6
"""Level, position, assignment and weight of a point."""
LOSSLESS_EDGE_BITS, LOSSLESS_CLS_BITS, LOSSLESS_REGION_BYTES = 26.5, 24.5, 4.5
MIN_BITS = 1.0
PIXEL_BYTES = 200
"""Checksum and thumbnail of a view, which hardly compress."""
FILE_BYTES = 2**15
"""Tables and metadata of a small store."""

DENSE_CLASS_BYTES, DENSE_BOX_BYTES = 0.15, 4.5
"""Of a position, where no teacher was probed: 0.11 and 3.4 measured with NanoDet."""
DENSE_LOSSLESS_SHARE = 0.95
"""Of float32."""
PROBED_VIEWS, MARGIN = 16, 1.25
"""Views on which a teacher is probed, and what is added to the mean of so few."""


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """Everything about a store that is known before its teacher runs."""

    schema: StoreSchema
    table: ViewIndex
    dense_row_bytes: float | None = None
    """What a position takes in the dense arrays, if :func:`probe_dense` measured it."""

    @property
    def positions(self) -> int:
        """Rows of the dense arrays."""
        return int(position_counts(self.table.geometry, self.schema.strides).sum())


def build_index(view_set: ViewSet, workers: int = 1, *, shown: bool = False) -> ViewIndex:
    """What the writer must know of every view, whose regions are found by ``workers`` at a time."""
    images, length = view_set.manifest.images, max(1, VIEWS_PER_RUN // len(view_set.views.numbers))
    runs = [  # one without images if there are none
        replace(view_set, manifest=replace(view_set.manifest, images=images[start : start + length]))
        for start in range(0, max(1, len(images)), length)
    ]
    # One thread of torch in each: sharing what is small costs more than it saves.
    one_thread = partial(torch.set_num_threads, 1)
    processes = workers > 1 and len(view_set) >= PROCESSES_FROM_VIEWS
    if processes:  # which would each load 300 MB of torch for themselves
        get_context("forkserver").set_forkserver_preload([ViewSet.__module__, ViewIndex.__module__])
    with loading_pool(workers, one_thread, processes=processes) as pool:
        parts = pool.map(ViewIndex.from_views, runs)
        return ViewIndex.concatenate(list(show_progress(parts, len(runs), "views") if shown else parts))


def layout_store(
    view_set: ViewSet,
    config: CacheConfig,
    spec: ModelSpec,
    fingerprint: Mapping[str, Any],
    workers: int = 1,
    *,
    shown: bool = False,
) -> StoreLayout:
    """Find the regions of every view, by ``workers`` at a time; keeps counts and boxes alone."""
    table = build_index(view_set, workers, shown=shown)
    schema = StoreSchema(
        bins=spec.bins,
        num_classes=spec.num_classes,
        strides=view_set.strides,
        precision=config.precision,
        views_per_partition=config.views_per_partition,
        fingerprint=fingerprint,
        provenance={"method": "Localization Distillation, CVPR 2022", "teacher": spec.name},
        dense=config.dense,
        pixels=True,
        valuable_classes=config.valuable_classes,
    )
    return StoreLayout(schema=fit_schema(schema, table), table=table)


def scratch_folder(schema: StoreSchema, scratch_root: Path) -> Path:
    """Where a store grows: a folder of its own for every fingerprint."""
    return scratch_root / digest(schema.fingerprint)[:16]


def estimate_bytes(layout: StoreLayout) -> int:
    """Bytes of a finished store."""
    schema, precision = layout.schema, layout.schema.precision
    points, main, boxes = (int(total) for total in layout.table.counts.sum(axis=0))
    edges = points * edge_columns(schema.bins, lossless=precision.lossless)
    classes = (points if schema.valuable_classes else main) * schema.num_classes
    edge_bits, cls_bits, region = LOSSLESS_EDGE_BITS, LOSSLESS_CLS_BITS, LOSSLESS_REGION_BYTES
    if precision.edge_step and precision.cls_step:
        edge_bits, cls_bits = _bits(EDGE_BITS_AT, precision.edge_step), _bits(CLS_BITS_AT, precision.cls_step)
        region = REGION_BYTES
    size = (edges * edge_bits + classes * cls_bits) / 8 + points * region
    size += 16 * boxes + (24 + PIXEL_BYTES * schema.pixels) * schema.views + FILE_BYTES
    if schema.dense:
        row_bytes = schema.num_classes * DENSE_CLASS_BYTES + DENSE_BOX_BYTES
        if schema.dense.lossless:
            row_bytes = 4 * (schema.num_classes + EDGES) * DENSE_LOSSLESS_SHARE
        size += layout.positions * (layout.dense_row_bytes or row_bytes)
    return int(size)


def _bits(known: tuple[float, float], step: float) -> float:
    known_step, known_bits = known
    return max(MIN_BITS, known_bits - math.log2(step / known_step))


def require_disk(layout: StoreLayout, scratch_root: Path) -> None:
    """Refuse by a ``CacheError``, before the teacher starts, what of a store is missing and cannot fit."""
    expected, free = estimate_bytes(layout), shutil.disk_usage(scratch_root).free
    begun = scratch_folder(layout.schema, scratch_root) / writer.STORE_FOLDER
    written = sum(path.stat().st_size for path in begun.rglob("*") if path.is_file())
    views, (points, main, objects) = layout.schema.views, layout.table.counts.sum(axis=0).tolist()
    sizes = [describe_bytes(size) for size in (expected, expected / max(1, views), free)]
    logger.info("store: %d views, %d kept points, about %s (%s a view), %s free", views, points, *sizes)
    if main < objects:
        why = "objects smaller than a cell get none; take larger scales"
        logger.warning("WARNING: %d points for the %d objects of all views: %s", main, objects, why)
    if expected - written > free:
        raise CacheError(
            f"{scratch_root}: expected room for about {describe_bytes(expected - written)}, but {sizes[-1]} "
            "are free; free some, or choose fewer views or a coarser precision"
        )


def probe_dense(teacher: LogitExtractor, view_set: ViewSet, schema: StoreSchema) -> float:
    """Bytes of a position in dense arrays, at most: of a few views, on which the teacher is run."""
    rows = np.unique(np.linspace(0, len(view_set) - 1, PROBED_VIEWS).astype(int)).tolist()
    views = [view for row in rows for view in view_set.in_rows(slice(row, row + 1))]
    arrays = quantize_partition(schema, views, list(teacher.run(views))).arrays
    positions = len(arrays[DENSE_CLASSES])
    shard_rows = -(-positions // DENSE_CHUNK_ROWS) * DENSE_CHUNK_ROWS
    dense = [spec for spec in sharded_specs(schema) if spec.path in DENSE]
    specs = [replace(spec, shards=(shard_rows, spec.shape[1])) for spec in dense]
    return MARGIN * sum(len(encode_shard(spec, arrays[spec.path])[0]) for spec in specs) / positions


def say_if_larger(store: Path, layout: StoreLayout) -> None:
    """Say it if the dense arrays of a finished store take more than was probed."""
    if layout.dense_row_bytes is None:
        return
    shards = (shard for record in read_attributes(store)["partitions"] for shard in record["shards"].items())
    taken = sum(file["size"] for name, file in shards if name.startswith(DENSE))
    expected = layout.dense_row_bytes * layout.positions
    if taken > expected:
        sizes = describe_bytes(taken), describe_bytes(expected)
        logger.warning("%s: the dense arrays take %s, where at most %s were expected", store, *sizes)
