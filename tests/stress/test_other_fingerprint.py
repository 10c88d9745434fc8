"""What is begun with one precision never mixes with what is made with another."""

from pathlib import Path
from typing import Any

from disk_state import OUTPUT, record_files, scratch_folders
from kills import Quiet, Tool
from project import edit_params
from workspace import Run, content_of, resumed_partitions, wait_for

COARSER = 0.2


def set_edge_step(workspace: Path, step: float) -> float:
    """Change the precision; returns the old step."""
    old: list[float] = []

    def edit(params: dict[str, Any]) -> None:
        precision = params["cache_teacher"]["precision"]
        old.append(precision["edge_step"])
        precision["edge_step"] = step

    edit_params(workspace, edit)
    return old[0]


def kill_half_way(workspace: Path, tool: Tool, quiet: Quiet) -> int:
    """Returns how many partitions were finished."""
    run = tool.start(workspace, workspace.parent / "killed.log")
    wait_for(run, lambda: len(_records(workspace)) >= quiet.partitions // 2)
    run.kill()
    return len(_records(workspace))


def _records(workspace: Path) -> list[Path]:
    return [record for scratch in scratch_folders(workspace) for record in record_files(scratch)]


def complete(workspace: Path, tool: Tool) -> Run:
    run = tool.start(workspace, workspace.parent / "complete.log")
    assert run.wait() == 0, run.text()
    return run


def test_another_precision_begins_anew_and_the_first_one_continues_later(
    workspace: Path, quiet: Quiet, forked_stage: Tool
) -> None:
    finished = kill_half_way(workspace, forked_stage, quiet)
    assert 0 < finished < quiet.partitions
    (begun,) = scratch_folders(workspace)
    before = content_of(begun)

    step = set_edge_step(workspace, COARSER)
    assert resumed_partitions(complete(workspace, forked_stage)) == 0
    assert content_of(workspace / OUTPUT) != quiet.store
    assert scratch_folders(workspace) == [begun], "its own folder is gone, the other one is not touched"
    assert content_of(begun) == before

    set_edge_step(workspace, step)
    assert resumed_partitions(complete(workspace, forked_stage)) == finished
    assert content_of(workspace / OUTPUT) == quiet.store
    assert scratch_folders(workspace) == []
