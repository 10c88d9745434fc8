"""Worker processes as such: what they are told, and how they end."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dask
import pytest
from distributed import Client
from distributed.security import Security
from forked import WAIT_SECONDS, Run, start_process

from pipeline.core import cluster
from pipeline.core.cluster import local_cluster, run_tasks
from pipeline.core.errors import CacheError

ROOT = Path(__file__).parents[2]

OWNER = """
import os, time
from pipeline.core.cluster import local_cluster
from pipeline.core.prefetch import loading_pool
def start():
    os.pool = loading_pool(1, processes=True)  # where it outlives this function
    return f"{os.getpid()} {os.pool.submit(os.getpid).result()}"
if __name__ == "__main__":
    with local_cluster([{}, {}], threads=1) as client:
        print(*client.run(start).values(), flush=True)
        time.sleep(600)
"""
"""Starts two workers, each with a process that decodes, says who they all are, and waits for its end."""


def started(folder: Path, code: str) -> Run:
    """A script in a session of its own; a ``sitecustomize`` beside it is loaded, too."""
    (folder / "script.py").write_text(code)
    path = os.pathsep.join([str(folder), str(ROOT)])
    return start_process([sys.executable, "script.py"], folder, folder / "log", PYTHONPATH=path)


def own_cluster(folder: Path) -> tuple[Run, list[int]]:
    """A process with two workers, and the ids of these and of theirs."""
    owner = started(folder, OWNER)
    owner.wait_for(owner.text)
    return owner, [int(pid) for pid in owner.text().split()]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers; a task may kill one of them, but not both."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        local_cluster([{"LDP_TEST": "first"}, {"LDP_TEST": "second"}], threads=1) as client,
    ):
        yield client


power = partial(pow, 2)


def fail_twice(folder: str, number: int) -> int:
    """Raise at the first two attempts."""
    attempts = len(list(Path(folder).iterdir()))
    Path(folder, str(attempts)).touch()
    if attempts < 2:
        raise OSError("a disk that is slow to wake")
    return number


def die(_: int) -> int:
    """Take the worker along."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_every_worker_has_an_environment_and_every_task_one_result(client: Client) -> None:
    assert sorted(client.run(os.getenv, "LDP_TEST").values()) == ["first", "second"]
    results = run_tasks(client, power, range(20), label="power", per_worker=2)
    assert sorted(results) == [2**number for number in range(20)]
    assert list(run_tasks(client, power, [], label="none", per_worker=2)) == []


def test_a_task_that_raises_is_tried_again_and_in_the_end_its_error_comes_as_it_is(
    client: Client, tmp_path: Path
) -> None:
    task = partial(fail_twice, str(tmp_path))
    assert list(run_tasks(client, task, [7], label="again", per_worker=2)) == [7]
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(run_tasks(client, os.close, [-1], label="never", per_worker=2))


def test_a_task_that_kills_its_workers_is_named(client: Client) -> None:
    with pytest.raises(CacheError, match="deadly-7: 2 workers died of it"):
        list(run_tasks(client, die, [7], label="deadly", per_worker=2))
    results = run_tasks(client, power, range(3), label="after", per_worker=2)
    assert sorted(results) == [1, 2, 4], "workers come back"


@pytest.mark.slow
def test_what_a_stopped_worker_was_at_is_done_by_another() -> None:
    with local_cluster([{}, {}], threads=1) as client:
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGSTOP)
        begun = time.monotonic()
        results = run_tasks(client, power, range(4), label="power", per_worker=2)
        assert sorted(results) == [1, 2, 4, 8]
        assert time.monotonic() - begun < WAIT_SECONDS


STOPS_WORKERS = """
import os, signal, sys
if any("spawn_main" in argument for argument in sys.orig_argv):
    os.kill(os.getpid(), signal.SIGSTOP)
"""
STARTER = """
import logging
from pipeline.core import cluster
if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    cluster.SLOW_SECONDS, cluster.START_SECONDS = 1, 3
    with cluster.local_cluster([{}], threads=1):
        pass
"""


@pytest.mark.slow
def test_a_worker_that_is_stopped_while_it_starts_is_noticed_and_given_up(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPS_WORKERS)
    starter = started(tmp_path, STARTER)
    starter.wait()
    first, *_, last = starter.text().splitlines()
    assert "the worker processes have not started after 1 s" in first
    assert "CacheError: expected worker processes to start within 3 s" in last


def wait_until_gone(owner: Run, pids: list[int]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while {*pids} & {*owner.members()}:
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.02)


@pytest.mark.slow
def test_workers_die_with_their_owner_however_it_dies(tmp_path: Path) -> None:
    owner, workers = own_cluster(tmp_path)
    assert len({*workers} & {*owner.members()}) == 4
    os.kill(workers[0], signal.SIGKILL)
    wait_until_gone(owner, workers[:2])
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_until_gone(owner, workers)


@pytest.mark.slow
def test_ctrl_c_is_for_the_owner_alone_which_ends_its_workers(tmp_path: Path) -> None:
    owner, workers = own_cluster(tmp_path)
    owner.signal(signal.SIGINT)  # as a terminal does
    owner.wait()
    wait_until_gone(owner, workers)
    assert owner.text().count("Traceback") == 1, f"expected the owner's own and no other: {owner.text()}"
    assert owner.text().endswith("KeyboardInterrupt\n")


def test_only_who_has_the_runs_own_key_gets_in(client: Client) -> None:
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    for stranger in ({"security": Security.temporary()}, {}):
        with pytest.raises((OSError, TypeError)):
            Client(address, timeout=2, **stranger)


def test_a_cluster_without_any_worker_is_noticed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute, in small."""
    monkeypatch.setattr(cluster, "NO_WORKER_SECONDS", 0.3)
    monkeypatch.setattr(client, "nthreads", dict)
    with pytest.raises(CacheError, match="all workers are gone, and none has come back; run again"):
        list(run_tasks(client, time.sleep, [2], label="sleep", per_worker=2))
