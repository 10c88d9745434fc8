"""Write and finalise a store: decode, teacher and the writing of the partition before overlap."""

import json
import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.core.code import made_by
from pipeline.core.environment import Environment
from pipeline.core.errors import CacheError
from pipeline.core.files import canonical_json, lock_scratch, write_atomically
from pipeline.core.progress import counted, progress_bar, timed_call
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.attributes import diff
from pipeline.store.writer import writer
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts
from pipeline.teacher.layout import StoreLayout, scratch_folder

logger = logging.getLogger(__name__)

MADE_BY = "made_by.json"
"""In a scratch folder: what code and libraries began the store."""

FOLDERS = ("views", "regions", "detector", "onnx", "codec", "store/format", "store/writer", "teacher")
"""Those whose code decides a store's bytes, as ``dvc.yaml`` has them."""

STEPS = ("regions", "decode", "teacher", "quantize", "write")
"""What a partition takes its time for."""

PARTITIONS_IN_FLIGHT = 4
"""In one process: one is computed while those before it are written. Each takes 0.3 GB at COCO's size."""


@dataclass(frozen=True, kw_only=True)
class StoreTimes:
    """Sums over finished partitions, which may come from several machines: seconds without waiting."""

    views: int = 0
    workers: frozenset[str] = frozenset()
    """Names of the processes that wrote them."""
    devices: frozenset[str] = frozenset()
    threads: tuple[int, ...] = (1, 1, 1)
    """How many of a process decode, run the teacher, and do all else."""
    regions: float = 0.0
    decode: float = 0.0
    teacher: float = 0.0
    quantize: float = 0.0
    write: float = 0.0

    def __add__(self, other: "StoreTimes") -> "StoreTimes":
        return StoreTimes(
            **{name: getattr(self, name) + getattr(other, name) for name in ("views", *STEPS)},
            workers=self.workers | other.workers,
            devices=self.devices | other.devices,
            threads=tuple(map(max, self.threads, other.threads)),
        )

    @property
    def bottleneck(self) -> str:
        """The step whose threads were busy longest, each: those of the other steps waited for them."""
        decoders, forwards, others = self.threads
        rest = {name: getattr(self, name) for name in ("regions", "quantize", "write")}
        shares = {"decode": self.decode / decoders, "teacher": self.teacher / forwards}
        shares[max(rest, key=rest.__getitem__)] = sum(rest.values()) / others
        return max(shares, key=shares.__getitem__)

    def summary_line(self, elapsed: float) -> str:
        """Rate, seconds of each step and bottleneck, after ``elapsed`` seconds."""
        steps = ", ".join(f"{name} {getattr(self, name):.1f} s" for name in STEPS)
        rate = f"{self.views / elapsed:.3g} views/s, {counted(len(self.workers), 'worker')}"
        return (
            f"cached {self.views} views in {elapsed:.1f} s ({rate}): {steps}; bottleneck: {self.bottleneck}"
        )


Engine = Callable[[Path, Sequence[int]], Generator[StoreTimes, None, None]]
"""Writes partitions of the store that ``writer.init`` began in a scratch folder; yields the finished ones.
Closing it early drops what has not begun."""


def write_store(
    layout: StoreLayout, view_set: ViewSet, teacher: LogitExtractor, *, scratch_root: Path, output: Path
) -> StoreTimes:
    """:func:`fill_store` in this process alone."""
    engine = partial(write_here, view_set, lambda: teacher, torch.get_num_threads())
    return fill_store(layout, engine, scratch_root=scratch_root, output=output)


def fill_store(
    layout: StoreLayout, engine: Engine, *, scratch_root: Path, output: Path, shown: bool = False
) -> StoreTimes:
    """Write what is not finished yet in a folder of ``scratch_root``, and move the store to ``output``.

    A ``CacheError`` if another run writes the same store, or partitions do not match the layout; a
    ``DatasetError`` if an image cannot be read, a ``TeacherError`` if an output is not finite.
    """
    scratch, times, start = scratch_folder(layout.schema, scratch_root), StoreTimes(), time.perf_counter()
    with lock_scratch(scratch):
        check_same_code(scratch)
        writer.init(scratch, layout.schema, layout.table)
        finished, number = writer.finished_partitions(scratch), layout.schema.partitions
        if finished:
            logger.info("resuming: %d of %d partitions were finished", len(finished), number)
        if remaining := [index for index in range(number) if index not in finished]:
            views = sum(run.stop - run.start for run in map(layout.schema.partition_views, remaining))
            bar = progress_bar(views, "cache", " views", hidden=not shown)
            with closing(engine(scratch, remaining)) as written, bar, logging_redirect_tqdm():
                for partition in written:
                    times += partition
                    bar.set_postfix_str(f"bottleneck: {partition.bottleneck}", refresh=False)
                    bar.update(partition.views)
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


def write_here(
    view_set: ViewSet,
    load_teacher: Callable[[], LogitExtractor],
    cores: int,
    scratch: Path,
    partitions: Sequence[int],
) -> Generator[StoreTimes, None, None]:
    """The engine of one process; an ``Engine`` once all but ``scratch`` and ``partitions`` is given."""
    partition_writer = PartitionWriter(scratch, view_set, load_teacher(), cores=cores, name="here")
    with ThreadPoolExecutor(PARTITIONS_IN_FLIGHT, thread_name_prefix="partition") as pool:
        written = [pool.submit(partition_writer.write, index) for index in partitions]
        try:
            for times in as_completed(written):
                yield times.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            partition_writer.close()


class PartitionWriter:
    """What one process needs to write partitions: the views, the teacher and their threads."""

    def __init__(
        self, scratch: Path, view_set: ViewSet, teacher: LogitExtractor, *, cores: int, name: str
    ) -> None:
        """Start the threads of a process that may use ``cores``; its times are reported under ``name``."""
        self._scratch = scratch
        self._schema = writer.read_schema(scratch)
        self._view_set = view_set
        self._teacher = teacher
        pixels = teacher.config.batch_size * view_set.views.largest_pixels
        counts = ThreadCounts.of(teacher.device, cores, pixels)
        self._threads = teacher.threads(counts)
        self._room = BoundedSemaphore(PARTITIONS_IN_FLIGHT)
        self._process = StoreTimes(
            workers=frozenset({name}),
            devices=frozenset({str(teacher.device)}),
            threads=(counts.decoders, counts.forwards, PARTITIONS_IN_FLIGHT),
        )

    def close(self) -> None:
        """Give up partitions that are not computed yet."""
        self._threads.close()

    def write(self, index: int) -> StoreTimes:
        """Make one partition, in any number of threads; errors as of :func:`fill_store`."""
        with self._room:
            views, regions = timed_call(self._view_set.in_rows, self._schema.partition_views(index))
            writer.require_views(self._scratch, index, views)
            targets, decode, teacher = self._teacher.compute(self._threads, views)
            rows, quantize = timed_call(quantize_partition, self._schema, views, targets)
            write = 0.0
            # The partition of a lost worker, or of a killed run, may be written twice: the second to come
            # leaves the files alone, for they may be on their way into the store.
            if not writer.is_finished(self._scratch, index):
                _, write = timed_call(writer.write_partition, self._scratch, index, rows)
        times = StoreTimes(views=len(views), regions=regions, quantize=quantize, write=write)
        return times + replace(self._process, decode=decode, teacher=teacher)
