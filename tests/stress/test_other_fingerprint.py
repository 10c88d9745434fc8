"""What is begun with one precision never mixes with what is made with another."""

from pathlib import Path

import pytest
from forked import Run
from project import edit_params
from store_cases import content_of
from workspace import OUTPUT, PARTITIONS, STAGE, Quiet, records, resumed, scratch_folders, start_and_stop

from recipes import set_value


def set_edge_step(workspace: Path, step: float) -> None:
    keys = ("cache_teacher", "precision", "edge_step")
    edit_params(workspace, lambda params: set_value(params, keys, step))


def complete(workspace: Path) -> Run:
    run = STAGE.start(workspace, workspace.parent / "complete.log")
    assert run.wait() == 0, run.text()
    return run


@pytest.mark.slow
def test_another_precision_begins_anew_and_the_first_one_continues_later(
    workspace: Path, quiet: Quiet
) -> None:
    start_and_stop(workspace, PARTITIONS // 2).kill()
    finished = len(records(workspace))
    (begun,) = scratch_folders(workspace)
    before = content_of(begun)

    set_edge_step(workspace, 0.2)
    assert resumed(complete(workspace)) == 0
    assert content_of(workspace / OUTPUT) != quiet.store
    assert scratch_folders(workspace) == [begun], "its own folder is gone, the other one is not touched"
    assert content_of(begun) == before

    set_edge_step(workspace, 0.03)
    assert resumed(complete(workspace)) == finished
    assert content_of(workspace / OUTPUT) == quiet.store
    assert scratch_folders(workspace) == []
