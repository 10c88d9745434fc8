"""Writing partitions in worker processes, each of which loads the teacher once."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from distributed import Client, Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from pipeline.core.cluster import registered, run_tasks
from pipeline.core.code import made_by
from pipeline.core.errors import CacheError, PipelineError
from pipeline.core.orphans import keep_freed_memory
from pipeline.store.format.fingerprint import diff
from pipeline.store.writer.writer import read_schema
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.teacher.partitions import PARTITIONS_IN_FLIGHT, PartitionWriter
from pipeline.teacher.run import FOLDERS
from pipeline.teacher.times import StoreTimes
from pipeline.views.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class PartitionJob:
    """From what a worker builds its part of a run: small, and valid on every machine that sees the folders.

    Attributes:
        workspace: What the other paths are relative to; ``images`` may be absolute.
        manifest: File of the training split.
        images: Root of its dataset.
        weights: The teacher's file.
        device: A torch device; ``None`` for the worker's first GPU, or its CPU if it has none.
        cores: How many a worker may use; ``None`` for as many as it runs tasks at a time (``--nthreads``).
        made_by: Code and libraries of the stage, which a worker must have, too.
    """

    workspace: Path
    manifest: Path
    images: Path
    weights: Path
    config: CacheConfig
    device: str | None
    cores: int | None
    made_by: Mapping[str, Any] = field(default_factory=lambda: made_by(FOLDERS))

    def start(self, scratch: Path, worker: Worker) -> PartitionWriter:
        """Load the teacher and make ready to write the store that was begun in ``scratch``.

        Raises:
            CacheError: this worker would make another store.
            DatasetError: there is no manifest.
            TeacherError: the weights cannot be used.
        """
        keep_freed_memory()
        manifest = read_manifest(self.workspace / self.manifest)
        manifest = replace(manifest, root=str(self.workspace / self.images))
        setup = load_inputs(self.config, manifest, self.workspace / self.weights)
        differing = diff(read_schema(scratch).fingerprint, setup.fingerprint)
        differing = differing or diff(self.made_by, made_by(FOLDERS))
        if differing:
            where, expected, got = differing
            raise CacheError(
                f"worker {worker.address}: expected to make the store of {self.workspace}, but its own "
                f"{where} is {got} instead of {expected}; give it the same folders and code"
            )
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return PartitionWriter(
            scratch,
            setup.view_set,
            setup.load_teacher(device),
            cores=self.cores or worker.state.nthreads,
            name=str(worker.name),
        )


class WriterPlugin(WorkerPlugin):
    """Holds a worker's ``PartitionWriter``, which the first task makes.

    Not when the worker starts: loading would keep it from answering, and could not fail as a task does.
    """

    def __init__(self, job: PartitionJob, scratch: Path) -> None:
        self._job = job
        self._scratch = scratch

    def setup(self, worker: Worker) -> None:
        self._worker = worker
        self._lock = Lock()
        self._writer: PartitionWriter | None = None

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def writer(self) -> PartitionWriter:
        with self._lock:
            self._writer = self._writer or self._job.start(self._scratch, self._worker)
            return self._writer


def write_in_workers(
    connect: Callable[[], AbstractContextManager[Client]],
    job: PartitionJob,
    scratch: Path,
    partitions: Sequence[int],
) -> Generator[StoreTimes, None, None]:
    """The engine of a cluster; an ``Engine`` once ``connect`` and ``job`` are given.

    Raises:
        PipelineError: What a worker raised, or the cluster failed.
    """
    scratch = scratch.resolve()
    with connect() as client, registered(client, WriterPlugin(job, scratch)) as plugin:
        written = run_tasks(
            client,
            partial(write_partition, plugin),
            partitions,
            label=f"partition-{scratch.name}-{plugin}",
            per_worker=PARTITIONS_IN_FLIGHT,
        )
        for result in written:
            if isinstance(result, PipelineError):
                raise result
            yield result


def write_partition(plugin: str, index: int) -> StoreTimes | PipelineError:
    """The task of a worker. An error that a user must remedy is returned: raised, it would be tried again."""
    holder = get_worker().plugins[plugin]
    assert isinstance(holder, WriterPlugin)
    try:
        return holder.writer().write(index)
    except PipelineError as error:
        return error
