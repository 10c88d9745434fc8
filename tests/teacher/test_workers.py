"""A store that several processes write: the same bytes as one process writes, whatever happens to them."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import dask
import pytest
import torch
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context
from forked import ensure_loaded
from store_cases import content_of
from teacher_cases import QUANTIZED, small_config, small_teacher, small_view_set

from pipeline.core.cluster import existing_cluster, local_cluster
from pipeline.core.errors import CacheError, TeacherError
from pipeline.detector.gfl import save_detector
from pipeline.teacher.inputs import load_inputs
from pipeline.teacher.layout import layout_store
from pipeline.teacher.run import Engine, StoreTimes, fill_store, write_here
from pipeline.teacher.workers import PartitionJob, write_in_workers
from pipeline.views.manifest import write_manifest

pytestmark = pytest.mark.slow

IMAGES = 16
CPU = torch.device("cpu")
Connect = Callable[[], AbstractContextManager[Client]]


class Workspace:
    """A teacher and its images on the disk, and the store of 16 partitions that they are to become."""

    def __init__(self, folder: Path) -> None:
        views = small_view_set(folder, IMAGES)
        write_manifest(views.manifest, folder / "train.json")
        save_detector(small_teacher(views.manifest).model, folder / "teacher.safetensors", {})
        config = small_config(QUANTIZED, views_per_partition=2)
        self.folder = folder
        self.setup = load_inputs(config, views.manifest, folder / "teacher.safetensors")
        self.layout = layout_store(self.setup.view_set, config, self.setup.spec, self.setup.fingerprint)
        self.here = partial(write_here, self.setup.view_set, partial(self.setup.load_teacher, CPU), 1)

    def workers(self, connect: Connect) -> Engine:
        make_job = partial(
            PartitionJob,
            manifest=self.folder / "train.json",
            images=self.folder / "shapes",
            weights=self.folder / "teacher.safetensors",
            config=self.setup.config,
            device="cpu",
            cores=1,
        )
        return partial(write_in_workers, connect, make_job)

    def fill(self, engine: Engine, name: str) -> tuple[dict[str, bytes], StoreTimes]:
        output = self.folder / f"{name}.zarr"
        times = fill_store(self.layout, engine, scratch_root=self.folder, output=output)
        return content_of(output), times


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def written_here(workspace: Workspace) -> dict[str, bytes]:
    """The store as this process alone writes it."""
    return workspace.fill(workspace.here, "here")[0]


@pytest.fixture(scope="module", autouse=True)
def workers_are_forked() -> Iterator[None]:
    """From a process that has loaded torch: those that load it themselves take most of a minute."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # which decides what the server loads, unless it runs already
        ensure_loaded()
        yield


@pytest.fixture(scope="module")
def anybodys() -> Iterator[Connect]:
    """Connects to a scheduler with four worker processes, which is there for anybody."""
    with LocalCluster(
        n_workers=4,
        threads_per_worker=2,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        connect = partial(existing_cluster, cluster.scheduler_address)
        yield connect
        with connect() as client:
            plugins = client.run(lambda dask_worker: list(dask_worker.plugins))
        assert not [name for names in plugins.values() for name in names if "PartitionJob" in name], "left"


def test_two_processes_one_of_which_is_killed_write_the_same_bytes(
    workspace: Workspace, written_here: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    victims: list[int] = []

    @contextmanager
    def connect() -> Iterator[Client]:
        with local_cluster([{}, {}], threads=2) as client:
            victims.append(min(client.run(os.getpid).values()))
            yield client

    def kill_one(scratch: Path, partitions: Sequence[int]) -> Iterator[StoreTimes]:
        for number, item in enumerate(workspace.workers(connect)(scratch, partitions)):
            if number == 0:
                os.kill(victims[0], signal.SIGKILL)
            yield item

    with caplog.at_level(logging.WARNING):
        files, times = workspace.fill(kill_one, "killed")
    assert files == written_here
    assert times.views == 2 * IMAGES
    assert "is gone; what it was at is done again" in caplog.text


def test_four_processes_of_an_existing_scheduler_write_the_same_bytes(
    workspace: Workspace, written_here: dict[str, bytes], anybodys: Connect
) -> None:
    files, times = workspace.fill(workspace.workers(anybodys), "existing")
    assert files == written_here
    assert times.views == 2 * IMAGES
    assert 1 <= len(times.workers) <= 4
    assert min(times.teacher, times.decode, times.regions, times.write) > 0


def test_a_worker_of_other_files_is_refused_and_one_that_cannot_start_says_why(
    tmp_path: Path, anybodys: Connect
) -> None:
    """Its folders are not those of whoever asks: a mistake that would not show in the plan."""
    workspace = Workspace(tmp_path)
    weights = tmp_path / "teacher.safetensors"
    save_detector(small_teacher(workspace.setup.view_set.manifest, seed=1).model, weights, {})
    message = r"worker tcp.*its own teacher\.weights is .* the same folders and code"
    with pytest.raises(CacheError, match=message):
        workspace.fill(workspace.workers(anybodys), "never")
    weights.unlink()
    with pytest.raises(TeacherError, match="expected a weights file, but there is none"):
        workspace.fill(workspace.workers(anybodys), "never")
