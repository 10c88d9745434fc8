"""Lay out, write and finalise a store of the teacher's outputs."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pipeline.core.code import made_by
from pipeline.core.environment import Environment
from pipeline.core.errors import CacheError
from pipeline.core.files import canonical_json, digest, lock_scratch, write_atomically
from pipeline.core.prefetch import loading_pool
from pipeline.core.progress import Progress, describe_bytes, unshown
from pipeline.detector.model import ModelSpec
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.fingerprint import diff
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.writer import writer
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.extractor import LogitExtractor
from pipeline.teacher.partitions import Engine, write_here
from pipeline.teacher.times import StoreTimes

logger = logging.getLogger(__name__)

MADE_BY = "made_by.json"
"""In a scratch folder: what code and libraries began the store."""

VIEWS_PER_RUN = 512
PROCESSES_FROM_VIEWS = 20_000
"""The regions of fewer are found by threads before processes would have begun."""

FOLDERS = ("views", "regions", "detector", "onnx", "codec", "store/format", "store/writer", "teacher")
"""Those whose code decides a store's bytes, as ``dvc.yaml`` has them."""


@dataclass(frozen=True, kw_only=True)
class StoreLayout:
    """Everything about a store that is known before its teacher runs."""

    schema: StoreSchema
    table: ViewIndex
    dense_row_bytes: float | None = None
    """What a position takes in the dense arrays, see ``dense.probe_dense``."""


def build_index(view_set: ViewSet, workers: int = 1, progress: Progress[ViewIndex] = unshown) -> ViewIndex:
    """What the writer must know of every view, whose regions are found by ``workers`` at a time.

    ``progress`` is shown the parts, a run of views each.
    """
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
        return ViewIndex.concatenate(list(progress(pool.map(ViewIndex.from_views, runs), len(runs), "views")))


def layout_store(
    view_set: ViewSet,
    config: CacheConfig,
    spec: ModelSpec,
    fingerprint: Mapping[str, Any],
    workers: int = 1,
    progress: Progress[ViewIndex] = unshown,
) -> StoreLayout:
    """Find the regions of every view, by ``workers`` at a time; keeps counts and boxes alone."""
    table = build_index(view_set, workers, progress)
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


def scratch_folder(layout: StoreLayout, scratch_root: Path) -> Path:
    """Where a store grows: a folder of its own for every fingerprint."""
    return scratch_root / digest(layout.schema.fingerprint)[:16]


def require_disk(layout: StoreLayout, scratch_root: Path) -> None:
    """Refuse by a ``CacheError``, before the teacher starts, what of a store is missing and cannot fit."""
    expected = estimate_bytes(layout.schema, layout.table, layout.dense_row_bytes)
    free = shutil.disk_usage(scratch_root).free
    begun = scratch_folder(layout, scratch_root) / writer.STORE_FOLDER
    written = sum(path.stat().st_size for path in begun.rglob("*") if path.is_file())
    views, (points, main, objects) = layout.schema.views, layout.table.counts.sum(axis=0).tolist()
    sizes = [describe_bytes(size) for size in (expected, expected / max(1, views), free)]
    logger.info("store: %d views, %d kept points, about %s (%s a view), %s free", views, points, *sizes)
    if main < objects:
        logger.warning(
            "WARNING: %d points for the %d objects of all views: objects smaller than a cell get none; take "
            "larger scales",
            main,
            objects,
        )
    if expected - written > free:
        raise CacheError(
            f"{scratch_root}: expected room for about {describe_bytes(expected - written)}, but {sizes[-1]} "
            "are free; free some, or choose fewer views or a coarser precision"
        )


def write_store(
    layout: StoreLayout,
    view_set: ViewSet,
    teacher: LogitExtractor,
    *,
    scratch_root: Path,
    output: Path,
    progress: Progress[StoreTimes] = unshown,
) -> StoreTimes:
    """:func:`fill_store` in this process alone."""
    engine = partial(write_here, view_set, lambda: teacher, torch.get_num_threads())
    return fill_store(layout, engine, scratch_root=scratch_root, output=output, progress=progress)


def fill_store(
    layout: StoreLayout,
    engine: Engine,
    *,
    scratch_root: Path,
    output: Path,
    progress: Progress[StoreTimes] = unshown,
) -> StoreTimes:
    """Write what is not finished yet in a folder of ``scratch_root``, and move the store to ``output``.

    ``progress`` is shown the finished partitions, and given the number of all their views.

    Raises:
        CacheError: another run writes the same store, or partitions do not match the layout.
        DatasetError: an image cannot be read.
        TeacherError: an output is not finite.
    """
    scratch, times, start = scratch_folder(layout, scratch_root), StoreTimes(), time.perf_counter()
    with lock_scratch(scratch):
        check_same_code(scratch)
        writer.init(scratch, layout.schema, layout.table)
        finished, number = writer.finished_partitions(scratch), layout.schema.partitions
        if finished:
            logger.info("resuming: %d of %d partitions were finished", len(finished), number)
        if remaining := [index for index in range(number) if index not in finished]:
            views = sum(run.stop - run.start for run in map(layout.schema.partition_views, remaining))
            with closing(engine(scratch, remaining)) as written:
                for partition in progress(written, views, "cache"):
                    times += partition
            logger.info("%s", times.summary_line(time.perf_counter() - start))
        writer.finalise(scratch, output)
    return times


def check_same_code(scratch: Path) -> None:
    """Let a store be finished by the code and libraries that began it, unless the user allows more.

    A ``CacheError`` names the first module or library that has changed since, and both ways on.
    """
    path, now = scratch / MADE_BY, made_by(FOLDERS)
    if changed := diff(json.loads(path.read_bytes()), now) if path.is_file() else None:
        what, then, here = (text.strip('"') for text in changed)  # hashes and versions, as JSON
        if Environment.read().resume is None:
            raise CacheError(
                f"{scratch} holds a store that other code began: {what} was {then[:12]}, but is {here[:12]} "
                "now; remove that folder to begin anew, or set LDP_RESUME=changed-code to finish it: it is "
                "then of both"
            )
        logger.warning("%s: begun by other code (%s); going on, for LDP_RESUME is set", scratch, what)
    write_atomically(path, canonical_json(now))
