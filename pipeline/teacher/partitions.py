"""Writing partitions in one process: decode, teacher and the writing of the partition before overlap."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import BoundedSemaphore

from pipeline.core.progress import timed_call
from pipeline.regions.view_set import ViewSet
from pipeline.store.writer import writer
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts
from pipeline.teacher.times import StoreTimes

PARTITIONS_IN_FLIGHT = 4
"""In one process: one is computed while those before it are quantized and written. Bounds the memory, 0.3 GB
each at COCO's size."""

Engine = Callable[[Path, Sequence[int]], Generator[StoreTimes, None, None]]
"""Writes partitions of the store that ``writer.init`` began in a scratch folder; yields the finished ones.

Closing it early drops what has not begun; partitions that were finished stay.
"""


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
        """Start the threads of a process that may use ``cores`` of them, and is reported by ``name``.

        Raises:
            CacheError: ``writer.init`` has not begun a store in ``scratch``.
        """
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
        """Find the views of one partition, compute, quantize and write it, from any number of threads.

        Raises:
            CacheError: the partition does not fit what was laid out.
            DatasetError: an image cannot be read.
            TeacherError: an output is not finite.
        """
        with self._room:
            views, regions = timed_call(self._view_set.in_rows, self._schema.partition_views(index))
            writer.require_views(self._scratch, index, views)
            targets, times = self._teacher.compute(self._threads, views)
            rows, quantize = timed_call(quantize_partition, self._schema, views, targets)
            write = 0.0
            # A scheduler gives the partition of a worker that it lost to another, and so does a rerun after
            # a kill: the second to come leaves the files alone, for they may be on their way into the store.
            if not writer.is_finished(self._scratch, index):
                _, write = timed_call(writer.write_partition, self._scratch, index, rows)
        times += StoreTimes(views=len(views), regions=regions, quantize=quantize, write=write)
        return times + self._process
