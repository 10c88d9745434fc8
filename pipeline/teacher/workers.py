"""Writing partitions in worker processes, each of which loads the teacher once."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
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
from pipeline.store.format.attributes import diff
from pipeline.store.writer.writer import read_schema
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.teacher.run import FOLDERS, PARTITIONS_IN_FLIGHT, PartitionWriter, StoreTimes
from pipeline.views.manifest import read_manifest


@dataclass(kw_only=True)
class PartitionJob(WorkerPlugin):
    """What a worker makes its ``PartitionWriter`` from: absolute paths, valid wherever the folders are seen.

    The first task makes it: a worker that loads as it starts would not answer, nor fail as a task does.
    """

    manifest: Path
    """File of the training split."""
    images: Path
    """Root of its dataset."""
    weights: Path
    config: CacheConfig
    device: str | None
    """A torch device; ``None`` for the worker's first GPU, or its CPU if it has none."""
    cores: int | None
    """How many a worker may use; ``None`` for as many as it runs tasks at a time (``--nthreads``)."""
    scratch: Path
    """Where the store was begun."""
    made_by: Mapping[str, Any]
    """Code and libraries of the stage, which a worker must have, too."""

    def setup(self, worker: Worker) -> None:
        self._worker, self._lock = worker, Lock()
        self._writer: PartitionWriter | None = None

    def teardown(self, worker: Worker) -> None:  # noqa: ARG002
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def write(self, index: int) -> StoreTimes:
        """Write a partition with the teacher, which is loaded once; a ``CacheError`` if of another store."""
        with self._lock:
            writer = self._writer = self._writer or self._start()
        return writer.write(index)

    def _start(self) -> PartitionWriter:
        keep_freed_memory()
        manifest = replace(read_manifest(self.manifest), root=str(self.images))
        setup = load_inputs(self.config, manifest, self.weights)
        differing = diff(read_schema(self.scratch).fingerprint, setup.fingerprint)
        if differing := differing or diff(self.made_by, made_by(FOLDERS)):
            where, expected, got = differing
            raise CacheError(
                f"worker {self._worker.address}: expected to make the store of {self.weights}, but its own "
                f"{where} is {got} instead of {expected}; give it the same folders and code"
            )
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        cores, name = self.cores or self._worker.state.nthreads, str(self._worker.name)
        teacher = setup.load_teacher(device)
        return PartitionWriter(self.scratch, setup.view_set, teacher, cores=cores, name=name)


def write_in_workers(
    connect: Callable[[], AbstractContextManager[Client]],
    make_job: Callable[..., PartitionJob],
    scratch: Path,
    partitions: Sequence[int],
) -> Generator[StoreTimes, None, None]:
    """The ``Engine`` of a cluster, once the first two are given; raises what a worker raised."""
    job = make_job(scratch=scratch.resolve(), made_by=made_by(FOLDERS))
    with connect() as client, registered(client, job) as plugin:
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
    assert isinstance(holder, PartitionJob)
    try:
        return holder.write(index)
    except PipelineError as error:
        return error
