"""Killed in any phase, the stage goes on where it was, and ends with the bytes of a quiet run."""

from pathlib import Path
from random import Random

import pytest
from disk_state import FINALISE, INIT, PARTITIONS, examine, phase_of, scratch_folders
from kills import GROUP, STAGE_ALONE, Campaign, Quiet, Tool, resetter
from workspace import Run

KILLS = 6


def campaign(workspace: Path, quiet: Quiet, tool: Tool, seed: int) -> Campaign:
    random = Random(seed)
    return Campaign(
        workspace=workspace,
        logs=workspace.parent,
        reset=resetter(workspace),
        quiet={tool.name: quiet},
        random=random,
        choose=lambda: (tool, random.random() < 0.5),
    )


def test_kill_after_kill_ends_with_the_bytes_of_a_quiet_run(
    workspace: Path, quiet: Quiet, forked_stage: Tool
) -> None:
    tally = campaign(workspace, quiet, forked_stage, seed=0).run(KILLS)
    assert tally.problems == []
    assert tally.kills.total() == KILLS
    assert tally.found_again > 0
    assert tally.needless == 0
    assert tally.completed > 0
    assert {victim for _, victim, _ in tally.kills} <= {GROUP, STAGE_ALONE}


def log_of(folder: Path, text: str) -> Run:
    (folder / "log").write_text(text)
    return Run(pid=0, poll=lambda: None, log=folder / "log")


def test_a_damaged_partition_is_not_mistaken_for_a_finished_one(workspace: Path, forked_stage: Tool) -> None:
    """The experiment's own oracle: a shard of the right size and the wrong content, an unreadable record."""
    run = forked_stage.start(workspace, workspace.parent / "log")
    while not (workspace / "scratch").exists() or len(examine(workspace).finished) < 3:
        assert run.poll() is None
    run.kill()
    state = examine(workspace)
    assert len(state.finished) >= 3
    assert phase_of(run, state, None) in (PARTITIONS, FINALISE)
    (scratch,) = scratch_folders(workspace)
    shard = scratch / "store.zarr/points/region/c/0/0"
    shard.write_bytes(bytes(shard.stat().st_size))
    (scratch / "partitions/p00001.json").write_text("{")
    assert examine(workspace).damaged >= {0, 1}


@pytest.mark.parametrize(("text", "phase"), [("views:   0%|\n", "plan"), ("x\nstore: 24 views\n", INIT)])
def test_the_phase_of_a_kill_is_told_from_log_and_disk(tmp_path: Path, text: str, phase: str) -> None:
    assert phase_of(log_of(tmp_path, text), examine(tmp_path), None) == phase
