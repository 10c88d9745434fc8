"""Killed in any phase, the stage goes on where it was, and ends with the bytes of a quiet run.

``LDP_STRESS=10`` kills ten times as often, dask's workers and `dvc repro`, too;
``-s`` shows where the kills fell.
"""

import os
import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from forked import Run
from project import edit_params
from store_cases import content_of
from workspace import (
    AFTER,
    DVC,
    FINALISE,
    INIT,
    OUTPUT,
    PARTITIONS,
    PHASES,
    PLAN,
    STAGE,
    WORKERS,
    WRITE,
    DiskState,
    Quiet,
    Tool,
    complete,
    examine,
    output_of,
    phase_of,
    prepare,
    records,
    resumed,
    scratch_folders,
    start_and_stop,
    watch,
)

from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from recipes import set_value

KILLS = 6
KILLS_A_LIFE = (2, 5)
"""Before a run may complete and the next begins from nothing: at least, at most."""
STRUCK = (WRITE, PLAN, WRITE, INIT, FINALISE, WRITE, AFTER)
"""Phases in which the kills fall, in turn."""
GROUP, ALONE = ("the group", "the stage alone")


@dataclass(kw_only=True)
class Campaign:
    """Kill after kill, life after life, in workspaces that begin from nothing.

    Attributes:
        prepared: To be copied for each life.
        kills: Where they fell: what was killed, and in which phase.
        taken_over: Finished partitions that the next run did not compute again.
        completed: Runs that completed with the quiet run's store.
    """

    prepared: Path
    folder: Path
    tool: Tool
    quiet: Quiet
    random: Random
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    taken_over: int = 0
    completed: int = 0

    def run(self, kills: int) -> None:
        """Go on until so many have fallen, and a whole store has come out."""
        while (left := kills - self.kills.total()) > 0:
            place = self.folder / f"life_{self.completed}"
            shutil.copytree(self.prepared, place / "workspace", symlinks=True)
            self._live(place, min(left, self.random.randint(*KILLS_A_LIFE)))

    def _live(self, place: Path, kills: int) -> None:
        """From nothing to a whole store, through a few kills."""
        workspace, runs, exact = place / "workspace", list[Run](), True
        code = -1
        while code:
            before = examine(workspace)
            runs.append(run := self.tool.start(workspace, place / f"{len(runs)}.log"))
            victim = self._strike(run, workspace, before) if len(runs) <= kills else None
            # A run that had done its work when the signal came was not killed.
            code = run.wait()
            assert victim or not code, run.text()[-2000:]
            exact &= victim != ALONE
            after = examine(workspace)
            if (taken := resumed(run)) is not None:
                self.taken_over += taken
                # What outlives the kill of a stage alone may have finished more.
                assert taken == len(before.finished) or (not exact and taken > len(before.finished)), (
                    run.text()
                )
            again = {i for i, known in before.finished.items() if after.finished.get(i, known) != known}
            assert not again, "finished partitions were written again"
            if code:
                self.kills[str(victim), phase_of(run, workspace, before.output)] += 1
                # It leaves a whole output, or an old one, half removed, that nobody reads.
                old = after.output in (None, before.output) and is_refused(workspace / OUTPUT)
                assert old or content_of(workspace / OUTPUT) == self.quiet.store
        for run in runs:  # What outlived the kill of a stage alone does no harm.
            run.kill()
        assert content_of(workspace / OUTPUT) == self.quiet.store
        self.completed += 1

    def _strike(self, run: Run, workspace: Path, before: DiskState) -> str:
        """Wait for a moment in a phase, and kill the stage or all, in turn."""
        phase, fraction = STRUCK[self.kills.total() % len(STRUCK)], self.random.random()
        victims = Counter(victim for victim, _ in self.kills.elements())
        whole_group = victims[GROUP] < victims[ALONE]
        run.wait_for(lambda: PHASES.index(phase_of(run, workspace, before.output)) >= PHASES.index(phase))
        seconds = self.quiet.seconds[phase]
        if phase == WRITE:
            begun = len(before.finished)
            wanted = min(begun + 1 + int(fraction * (PARTITIONS - begun)), PARTITIONS - 1)
            run.wait_for(lambda: len(records(workspace)) >= wanted)
            seconds /= PARTITIONS
        run.wait_seconds(fraction * seconds)
        stage = None if whole_group else self.tool.stage(run)
        if stage is None:
            run.kill()
            return GROUP
        with suppress(ProcessLookupError):
            os.kill(stage, signal.SIGKILL)
        return ALONE


def is_refused(store: Path) -> bool:
    """Whether no student would read a store."""
    try:
        TargetStore.open(store)
    except CacheError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("tool", [STAGE, WORKERS, DVC], ids=lambda tool: tool.name)
def test_kill_after_kill_ends_with_the_bytes_of_a_quiet_run(
    tool: Tool, factor: int, quiet: Quiet, tmp_path: Path
) -> None:
    if tool is not STAGE and factor == 1:
        pytest.skip("a kill of more than one process takes long: LDP_STRESS=2 and more")
    prepared = tmp_path / "prepared/workspace"
    prepare(prepared, tool)
    shutil.copytree(prepared, tmp_path / "own/workspace", symlinks=True)
    own = watch(tool, tmp_path / "own/workspace", tmp_path / "own.log")
    assert own.store == quiet.store
    campaign = Campaign(prepared=prepared, folder=tmp_path, tool=tool, quiet=own, random=Random(0))
    campaign.run(KILLS * factor)
    print(campaign.kills, f"{campaign.taken_over} taken over, {campaign.completed} completed")
    assert campaign.taken_over > 0
    assert {victim for victim, _ in campaign.kills} == {GROUP, ALONE}


@pytest.mark.slow
def test_a_damaged_partition_is_not_mistaken_for_a_finished_one(workspace: Path) -> None:
    """The experiment's own oracle: a shard of the right size and the wrong content, an unreadable record."""
    run = start_and_stop(workspace, 3)
    run.kill()
    first, second, *others = examine(workspace).finished
    assert phase_of(run, workspace, output_of(workspace)) == WRITE
    assert run.members() == []
    (scratch,) = scratch_folders(workspace)
    shard = scratch / f"store.zarr/points/region/c/{first}/0"
    shard.write_bytes(bytes(shard.stat().st_size))
    (scratch / f"partitions/p{second:05}.json").write_text("{")
    assert list(examine(workspace).finished) == others


@pytest.mark.slow
def test_another_precision_begins_anew_and_the_first_one_continues_later(
    workspace: Path, quiet: Quiet
) -> None:
    def set_edge_step(step: float) -> None:
        keys = ("cache_teacher", "precision", "edge_step")
        edit_params(workspace, lambda params: set_value(params, keys, step))

    start_and_stop(workspace, PARTITIONS // 2).kill()
    finished = len(records(workspace))
    (begun,) = scratch_folders(workspace)
    before = content_of(begun)
    set_edge_step(0.2)
    assert resumed(complete(workspace)) == 0
    assert content_of(workspace / OUTPUT) != quiet.store
    assert scratch_folders(workspace) == [begun], "its own folder is gone, the other one is not touched"
    assert content_of(begun) == before
    set_edge_step(0.03)
    assert resumed(complete(workspace)) == finished
    assert content_of(workspace / OUTPUT) == quiet.store
    assert scratch_folders(workspace) == []


@pytest.mark.parametrize(("text", "phase"), [("views:   0%|\n", PLAN), ("x\nstore: 24 views\n", INIT)])
def test_the_phase_of_a_kill_is_told_from_log_and_disk(tmp_path: Path, text: str, phase: str) -> None:
    (tmp_path / "log").write_text(text)
    assert phase_of(Run(pid=0, poll=lambda: None, log=tmp_path / "log"), tmp_path, None) == phase
