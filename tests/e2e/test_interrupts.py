"""Ctrl-C in every stage: exit code 130, no traceback, and the next run makes what it would have made."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from blank import blank_pictures
from finished import call, files_below, without_times
from forked import start

INTERRUPTED = (
    "prepare_data",
    "prepare_teacher",
    "evaluate ld",
    "cache_teacher",
    "verify_cache",
    "train_student ld",
    "report",
)
LOG = Path("log")


def interrupt(stage: str, seconds: float, **variables: str) -> int:
    """Press Ctrl-C so long after a stage has begun; returns its exit code."""
    LOG.unlink(missing_ok=True)
    run = start(stage, Path.cwd(), LOG.absolute(), **variables)
    run.wait_seconds(seconds)
    run.signal(signal.SIGINT)
    return run.wait()


def seconds_of(stage: str) -> float:
    """How long it takes undisturbed."""
    begun = time.monotonic()
    with blank_pictures():
        assert call(stage).code == 0
    return time.monotonic() - begun


@pytest.mark.slow
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
    assert "Traceback" not in LOG.read_text()
    assert without_times(files_below(own_project / "runs")) == whole
    seconds_of(stage)
    assert without_times(files_below(own_project / "runs")) == whole


@pytest.mark.slow
def test_ctrl_c_reaches_the_processes_that_decode(own_project: Path) -> None:
    whole = without_times(files_below(own_project / "runs"))
    codes = [interrupt("train_student ld", wait, LDP_WORKERS="2") for wait in (0.1, 0.3)]
    assert 130 in codes
    assert "Traceback" not in LOG.read_text()
    assert without_times(files_below(own_project / "runs")) == whole
