"""Two runs of the stage in one workspace: the lock lets one through, and the other one says why it ends."""

import os
import signal
from pathlib import Path

from disk_state import OUTPUT, count_records
from kills import Quiet, Tool
from two_runs import REFUSED, WORKED, outcome_of, run_twice
from workspace import content_of, wait_for


def test_of_two_runs_at_the_same_moment_one_works_and_the_store_is_whole(
    workspace: Path, quiet: Quiet, forked_stage: Tool
) -> None:
    result = run_twice(workspace, forked_stage, quiet, None, workspace.parent)
    assert result.problems == []
    assert sorted(result.outcomes) == [REFUSED, WORKED]


def test_a_run_is_refused_as_long_as_another_one_lives(
    workspace: Path, quiet: Quiet, forked_stage: Tool
) -> None:
    """The first one is held up half-way, so that the second one surely comes in between."""
    first = forked_stage.start(workspace, workspace.parent / "first.log")
    wait_for(first, lambda: count_records(workspace) > 2)
    os.killpg(first.pid, signal.SIGSTOP)
    records = count_records(workspace)
    second = forked_stage.start(workspace, workspace.parent / "second.log")
    assert outcome_of(second) == REFUSED
    assert second.poll() == 1
    assert count_records(workspace) == records
    os.killpg(first.pid, signal.SIGCONT)
    assert outcome_of(first) == WORKED
    assert content_of(workspace / OUTPUT) == quiet.store
