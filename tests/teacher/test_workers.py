"""A store that several processes write: the same bytes as one process writes, whatever happens to them."""

import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
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
from pipeline.core.files import digest
from pipeline.core.progress import Progress, unshown
from pipeline.detector.gfl import save_detector
from pipeline.store.writer import writer
from pipeline.teacher.inputs import StoreInputs, load_inputs
from pipeline.teacher.partitions import Engine, write_here
from pipeline.teacher.run import StoreLayout, fill_store, layout_store
from pipeline.teacher.times import StoreTimes
from pipeline.teacher.workers import PartitionJob, write_in_workers
from pipeline.views.manifest import write_manifest

pytestmark = pytest.mark.slow

IMAGES = 16
CPU = torch.device("cpu")
Connect = Callable[[], AbstractContextManager[Client]]
Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """A teacher and its images on the disk, and the store that they are to become."""

    folder: Path
    setup: StoreInputs
    layout: StoreLayout

    @property
    def job(self) -> PartitionJob:
        return PartitionJob(
            workspace=self.folder,
            manifest=Path("train.json"),
            images=Path("shapes"),
            weights=Path("teacher.safetensors"),
            config=self.setup.config,
            device="cpu",
            cores=1,
        )

    @property
    def scratch(self) -> Path:
        return self.folder / digest(self.setup.fingerprint)[:16]

    def workers(self, connect: Connect) -> Engine:
        return partial(write_in_workers, connect, self.job)

    def fill(
        self,
        engine: Engine,
        name: str,
        progress: Progress[StoreTimes] = unshown,
    ) -> tuple[Files, StoreTimes]:
        output = self.folder / f"{name}.zarr"
        times = fill_store(
            self.layout,
            engine,
            scratch_root=self.folder,
            output=output,
            progress=progress,
        )
        return content_of(output), times


def prepare(folder: Path, *, silent: bool = False) -> Workspace:
    """A workspace of 16 partitions; the weights of a silent teacher are finite, and overflow."""
    views = small_view_set(folder, IMAGES)
    write_manifest(views.manifest, folder / "train.json")
    model = small_teacher(views.manifest).model
    if silent:
        with torch.no_grad():
            model.bbox_head.gfl_reg.weight.fill_(3e38)
    save_detector(model, folder / "teacher.safetensors", {})
    config = small_config(QUANTIZED, views_per_partition=2)
    setup = load_inputs(config, views.manifest, folder / "teacher.safetensors")
    layout = layout_store(setup.view_set, config, setup.spec, setup.fingerprint)
    return Workspace(folder=folder, setup=setup, layout=layout)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return prepare(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def written_here(workspace: Workspace) -> Files:
    """The store as this process alone writes it."""
    return workspace.fill(
        partial(write_here, workspace.setup.view_set, partial(workspace.setup.load_teacher, CPU), 1), "here"
    )[0]


@pytest.fixture(scope="module", autouse=True)
def workers_are_forked() -> Iterator[None]:
    """From a process that has loaded torch: those that load it themselves take most of a minute."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        get_mp_context()  # which decides what the server loads, unless it runs already
        ensure_loaded()
        yield


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a scheduler with four worker processes, which is there for anybody."""
    with LocalCluster(
        n_workers=4,
        threads_per_worker=2,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster.scheduler_address


def test_two_processes_one_of_which_is_killed_write_the_same_bytes(
    workspace: Workspace, written_here: Files, caplog: pytest.LogCaptureFixture
) -> None:
    victims: list[int] = []

    @contextmanager
    def connect() -> Iterator[Client]:
        with local_cluster([{}, {}], threads=2) as client:
            victims.append(min(client.run(os.getpid).values()))
            yield client

    def kill_one(items: Iterable[StoreTimes], _total: int, _label: str) -> Iterator[StoreTimes]:
        for number, item in enumerate(items):
            if number == 0:
                os.kill(victims[0], signal.SIGKILL)
            yield item

    with caplog.at_level(logging.WARNING):
        files, times = workspace.fill(workspace.workers(connect), "killed", kill_one)
    assert files == written_here
    assert times.views == 2 * IMAGES
    assert "is gone; what it was at is done again" in caplog.text


def test_four_processes_of_an_existing_scheduler_write_the_same_bytes(
    workspace: Workspace, written_here: Files, scheduler: str
) -> None:
    files, times = workspace.fill(workspace.workers(partial(existing_cluster, scheduler)), "existing")
    assert files == written_here
    assert times.views == 2 * IMAGES
    assert 1 <= len(times.workers) <= 4
    assert min(times.busy.teacher, times.busy.decode, times.busy.regions, times.busy.write) > 0


def test_a_teacher_that_says_nan_in_a_worker_names_the_image_and_finished_partitions_stay(
    tmp_path: Path, scheduler: str
) -> None:
    workspace = prepare(tmp_path, silent=True)
    writer.init(workspace.scratch, workspace.layout.schema, workspace.layout.table)
    teller = small_teacher(workspace.setup.view_set.manifest)
    list(write_here(workspace.setup.view_set, lambda: teller, 1, workspace.scratch, [3, 5]))
    engine = workspace.workers(partial(existing_cluster, scheduler))
    with pytest.raises(
        TeacherError, match=r"^image_id=\d+, view=\d: expected finite teacher outputs, but \d+ of"
    ):
        workspace.fill(engine, "never")
    # Partitions without a single point have nothing that could be NaN.
    pointless = {
        index for index in range(16) if not workspace.layout.table.counts[2 * index : 2 * index + 2, 0].any()
    }
    finished = writer.finished_partitions(workspace.scratch)
    assert {3, 5} <= finished <= {3, 5} | pointless


def test_a_worker_with_other_files_is_refused(tmp_path: Path, scheduler: str) -> None:
    """Its folders are not those of whoever asks: a mistake that would not show in the plan."""
    workspace = prepare(tmp_path)
    other = small_teacher(workspace.setup.view_set.manifest, seed=1)
    save_detector(other.model, tmp_path / "teacher.safetensors", {})
    engine = workspace.workers(partial(existing_cluster, scheduler))
    with pytest.raises(
        CacheError, match=r"worker tcp.*its own teacher\.weights is .* the same folders and code"
    ):
        workspace.fill(engine, "never")


def test_a_worker_that_cannot_start_says_why(tmp_path: Path, scheduler: str) -> None:
    workspace = prepare(tmp_path)
    (tmp_path / "teacher.safetensors").unlink()
    engine = workspace.workers(partial(existing_cluster, scheduler))
    with pytest.raises(TeacherError, match="expected a weights file, but there is none"):
        workspace.fill(engine, "never")


def test_a_run_leaves_an_existing_scheduler_as_it_was(scheduler: str) -> None:
    with existing_cluster(scheduler) as client:
        plugins = client.run(lambda dask_worker: list(dask_worker.plugins))
    assert not [name for names in plugins.values() for name in names if "PartitionJob" in name]
