"""Two runs of the stage in one workspace: the lock lets one through, and the other one says why it ends."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from forked import Run
from store_cases import Content, content_of
from workspace import (
    FACTOR,
    OUTPUT,
    begin,
    begin_and_stop,
    begin_process,
    records,
    scratch_folders,
    without_store,
)

WORKED, REFUSED = ("worked", "refused")
REFUSALS = (
    *("another run is writing to", "another run has just finished with"),
    *("Unable to acquire lock", "is busy, it is being", "Another DVC process"),
)
MAX_DELAY_SECONDS = 1.0
"""About as long as a run is at work."""


def outcome_of(run: Run) -> str:
    """What became of a run."""
    if run.wait() == 0:
        return WORKED
    text = run.text()
    assert "Traceback" not in text
    assert any(words in text for words in REFUSALS), text[-1000:]
    return REFUSED


def run_twice(workspace: Path, quiet: Content, begin: Callable[[Path], Run], delay: float = 0.0) -> list[str]:
    """Start a run, and another one ``delay`` seconds later; returns what became of them."""
    first = begin(workspace)
    time.sleep(delay)
    outcomes = [outcome_of(run) for run in (first, begin(workspace))]
    assert WORKED in outcomes
    assert content_of(workspace / OUTPUT) == quiet
    # A refused run that came to the lock as the other one removed the folder leaves an empty one.
    assert {path.name for scratch in scratch_folders(workspace) for path in scratch.iterdir()} <= {"lock"}
    return outcomes


@pytest.mark.slow
def test_of_two_runs_one_works_and_the_store_is_whole(workspace: Path, quiet: Content) -> None:
    """At the same moment; ``LDP_STRESS=2`` and more: at any moments."""
    random = Random(0)
    delays = [0.0, *(random.uniform(0, MAX_DELAY_SECONDS) for _ in range(3 * FACTOR if FACTOR > 1 else 0))]
    print([run_twice(workspace, quiet, begin, delay) for delay in delays])


@pytest.mark.slow
@pytest.mark.skipif(FACTOR == 1, reason="real processes take long: LDP_STRESS=2 and more")
def test_of_two_runs_of_dvc_one_works(own_repository: Path, quiet: Content) -> None:
    def begin_dvc(folder: Path) -> Run:
        return begin_process(folder, "dvc", "repro", "cache_teacher")

    assert sorted(run_twice(without_store(own_repository), quiet, begin_dvc)) == [REFUSED, WORKED]


@pytest.mark.slow
def test_a_run_is_refused_as_long_as_another_one_lives(workspace: Path, quiet: Content) -> None:
    """The first one is held up half-way, so that the second one surely comes in between."""
    first = begin_and_stop(workspace, 3)
    begun = len(records(workspace))
    second = begin(workspace)
    assert outcome_of(second) == REFUSED
    assert second.last_line().startswith("error: ")
    assert second.poll() == 1
    assert len(records(workspace)) == begun
    first.signal(signal.SIGCONT)
    assert outcome_of(first) == WORKED
    assert content_of(workspace / OUTPUT) == quiet
