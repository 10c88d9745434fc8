"""Killed at any moment, the stage goes on where it was, and ends with the bytes of a quiet run.

``LDP_STRESS=10`` kills ten times as often, dask's workers and `dvc repro`, too; ``-s`` shows where.
"""

import os
import signal
from collections import Counter
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

import psutil
import pytest
from forked import stop_after
from project import edit_params
from store_cases import Content, content_of
from workspace import (
    FACTOR,
    OUTPUT,
    PARTITIONS,
    begin,
    begin_and_stop,
    begin_process,
    complete,
    finished,
    records,
    resumed,
    scratch_folders,
    without_store,
)

from pipeline.core.errors import CacheError
from pipeline.core.orphans import is_stopped
from pipeline.store.reader.reader import TargetStore
from recipes import ROOT, set_value

CALLS = {
    "stages.cache_teacher.layout_store": 1,
    "pipeline.store.writer.writer.init": 1,
    "os.fsync": 400,
    "os.mkdir": 170,
    "os.replace": 140,
    "os.unlink": 66,
    "os.rename": 2,
}
"""Functions after whose calls kills fall, in turn, and about how many calls of them a quiet run takes."""


def is_refused(store: Path) -> bool:
    """Whether no student would read a store."""
    try:
        TargetStore.open(store)
    except CacheError:
        return True
    return False


@pytest.mark.slow
def test_kill_after_kill_ends_with_the_bytes_of_a_quiet_run(workspace: Path, quiet: Content) -> None:
    """From nothing, through a few kills, to a whole store; then again, with that one in the way."""
    random, functions, kills, taken_over, code = Random(0), cycle(CALLS), Counter[str](), 0, -1
    while code or kills.total() < FACTOR * len(CALLS):
        before, function = finished(workspace), next(functions)
        run = begin(workspace, partial(stop_after, function, random.randint(1, CALLS[function])))
        run.wait_for(lambda pid=run.pid: is_stopped(pid))
        run.kill()
        code, after = run.poll(), finished(workspace)
        if (taken := resumed(run)) is not None:
            assert taken == len(before), run.text()
            taken_over += taken
        again = {name for name, known in before.items() if after.get(name, known) != known}
        assert not again, "finished partitions were written again"
        if code:
            assert code == -signal.SIGKILL, run.text()
            kills[function] += 1
        # It leaves a whole output, or an old one, half removed, that nobody reads.
        assert content_of(workspace / OUTPUT) == quiet or (code and is_refused(workspace / OUTPUT))
    print(kills, f"{taken_over} taken over")
    assert taken_over > 0


@pytest.mark.slow
@pytest.mark.skipif(FACTOR == 1, reason="real processes take long: LDP_STRESS=2 and more")
@pytest.mark.parametrize("arguments", ["stages.cache_teacher", "dvc repro cache_teacher"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_stage_that_has_processes_or_is_one_goes_on(
    arguments: str, alone: bool, own_repository: Path, quiet: Content
) -> None:
    """Killed with its workers or DVC, or alone, so that these outlive it."""
    workspace = without_store(own_repository)
    workers = {"PYTHONPATH": str(ROOT), "LDP_CACHE_WORKERS": "2"} if arguments.startswith("stages") else {}
    run = begin_process(workspace, *arguments.split(), **workers)
    run.wait_for(lambda: len(records(workspace)) > 2)
    if alone:
        commands = {pid: psutil.Process(pid).cmdline() for pid in run.members()}
        os.kill(next(pid for pid in commands if "stages.cache_teacher" in commands[pid]), signal.SIGKILL)
        run.wait()
    else:
        run.kill()
    if "dvc" in arguments:
        again = begin_process(workspace, *arguments.split())
        assert again.wait() == 0, again.text()
    else:
        assert (complete(workspace) or 0) > 2
    run.kill()  # What outlived the kill of a stage alone does no harm.
    assert content_of(workspace / OUTPUT) == quiet


@pytest.mark.slow
def test_another_precision_begins_anew_and_the_first_one_continues_later(
    workspace: Path, quiet: Content
) -> None:
    def set_edge_step(step: float) -> None:
        keys = ("cache_teacher", "precision", "edge_step")
        edit_params(workspace, lambda params: set_value(params, keys, step))

    begin_and_stop(workspace, PARTITIONS // 2).kill()
    count = len(records(workspace))
    (begun,) = scratch_folders(workspace)
    before = content_of(begun)
    set_edge_step(0.004)
    assert complete(workspace) == 0
    assert content_of(workspace / OUTPUT) != quiet
    assert scratch_folders(workspace) == [begun], "its own folder is gone, the other one is not touched"
    assert content_of(begun) == before
    set_edge_step(0.005)
    assert complete(workspace) == count
    assert content_of(workspace / OUTPUT) == quiet
    assert scratch_folders(workspace) == []
