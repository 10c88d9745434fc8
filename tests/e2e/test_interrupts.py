"""Ctrl-C in every stage: exit code 130, no traceback, and the next run makes what it would have made."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished import STAGES, call, files_below, without_times
from fork_servers import own_fork_server

INTERRUPTED = (
    "prepare_data",
    "prepare_teacher",
    "evaluate ld",
    "cache_teacher",
    "verify_cache",
    "train_student ld",
    "report",
)
MAX_SECONDS = 120.0

_context = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def stages_are_loaded() -> Iterator[None]:
    """Else Ctrl-C would come while a stage is still loading."""
    with own_fork_server(["finished", *(f"stages.{stage.split()[0]}" for stage in STAGES)]):
        yield


def run_apart(stage: str, log: str) -> None:
    """In a process group of its own, as the shell starts it; Python's start and the imports are spared."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    Path("begun").touch()
    os._exit(call(stage).code)


def interrupt(stage: str, seconds: float) -> int:
    """Press Ctrl-C so long after a stage has begun; returns its exit code."""
    Path("begun").unlink(missing_ok=True)
    process = _context.Process(target=run_apart, args=(stage, "log"))
    process.start()
    assert process.pid is not None
    end = time.monotonic() + MAX_SECONDS
    while not Path("begun").exists():
        assert time.monotonic() < end
        time.sleep(0.001)
    time.sleep(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGINT)
    process.join(MAX_SECONDS)
    assert process.exitcode is not None, "the stage does not end"
    return process.exitcode


def seconds_of(stage: str) -> float:
    """How long it takes undisturbed."""
    start = time.monotonic()
    assert call(stage).code == 0
    return time.monotonic() - start


@pytest.mark.parametrize("stage", INTERRUPTED)
def test_ctrl_c_ends_a_stage_and_loses_nothing(own_project: Path, stage: str) -> None:
    shutil.rmtree("scratch")
    whole = without_times(files_below(own_project / "runs"))
    whole_seconds = seconds_of(stage)
    shutil.rmtree("scratch", ignore_errors=True)
    # A stage that ends before it is interrupted has to be interrupted sooner.
    waits = [whole_seconds * share for share in (0.5, 0.25, 0.1, 0.02, 0.0)]
    wait = next((wait for wait in waits if interrupt(stage, wait) == 130), None)
    assert wait is not None, f"never interrupted: {Path('log').read_text()}"
    assert "Traceback" not in Path("log").read_text()
    assert without_times(files_below(own_project / "runs")) == whole
    assert call(stage).code == 0
    assert without_times(files_below(own_project / "runs")) == whole


def test_ctrl_c_reaches_the_processes_that_decode(own_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDP_WORKERS", "2")
    whole = without_times(files_below(own_project / "runs"))
    codes = [interrupt("train_student ld", wait) for wait in (0.1, 0.3)]
    assert 130 in codes
    assert "Traceback" not in Path("log").read_text()
    assert without_times(files_below(own_project / "runs")) == whole
