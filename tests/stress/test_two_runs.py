"""Two runs of the stage in one workspace: the lock lets one through, and the other one says why it ends."""

import signal
from pathlib import Path
from random import Random

import pytest
from forked import Run
from store_cases import content_of
from workspace import (
    DVC,
    OUTPUT,
    PLAN,
    STAGE,
    Quiet,
    Tool,
    prepare,
    records,
    scratch_folders,
    start_and_stop,
)

WORKED, REFUSED = ("worked", "refused")
REFUSALS = (
    *("another run is writing to", "another run has just finished with"),
    *("Unable to acquire lock", "is busy, it is being", "Another DVC process"),
)


def outcome_of(run: Run) -> str:
    """What became of a run."""
    if run.wait() == 0:
        return WORKED
    text = run.text()
    assert "Traceback" not in text
    assert any(words in text for words in REFUSALS), text[-1000:]
    return REFUSED


def run_twice(workspace: Path, tool: Tool, quiet: Quiet, delay: float = 0.0) -> list[str]:
    """Start a run, and another one ``delay`` seconds later; returns what became of them."""
    first = tool.start(workspace, workspace.parent / "first.log")
    first.wait_seconds(delay)
    second = tool.start(workspace, workspace.parent / "second.log")
    outcomes = [outcome_of(first), outcome_of(second)]
    assert WORKED in outcomes
    assert content_of(workspace / OUTPUT) == quiet.store
    # A refused run that came to the lock as the other one removed the folder leaves an empty one.
    assert {path.name for scratch in scratch_folders(workspace) for path in scratch.iterdir()} <= {"lock"}
    return outcomes


@pytest.mark.slow
def test_of_two_runs_one_works_and_the_store_is_whole(
    workspace: Path, quiet: Quiet, factor: int, tmp_path: Path
) -> None:
    """At the same moment; ``LDP_STRESS=2`` and more: at any moments, and two of DVC."""
    run_twice(workspace, STAGE, quiet)
    if factor > 1:
        # The first run comes to the lock once it has planned, and so does the second.
        life = sum(seconds for phase, seconds in quiet.seconds.items() if phase != PLAN)
        random = Random(0)
        print([run_twice(workspace, STAGE, quiet, random.uniform(0, 1.2 * life)) for _ in range(3 * factor)])
        prepare(tmp_path / "dvc/workspace", DVC)
        assert sorted(run_twice(tmp_path / "dvc/workspace", DVC, quiet)) == [REFUSED, WORKED]


@pytest.mark.slow
def test_a_run_is_refused_as_long_as_another_one_lives(workspace: Path, quiet: Quiet) -> None:
    """The first one is held up half-way, so that the second one surely comes in between."""
    first = start_and_stop(workspace, 3)
    begun = len(records(workspace))
    second = STAGE.start(workspace, workspace.parent / "second.log")
    assert outcome_of(second) == REFUSED
    assert second.last_line().startswith("error: ")
    assert second.poll() == 1
    assert len(records(workspace)) == begun
    first.signal(signal.SIGCONT)
    assert outcome_of(first) == WORKED
    assert content_of(workspace / OUTPUT) == quiet.store
