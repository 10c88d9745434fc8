"""SIGKILL the stage that writes the store, again and again, and compare what comes out with a quiet run.

    uv run python tests/stress/kills.py --kills 30 --seed 0

A small workspace in a temporary folder runs the real `dvc repro cache_teacher` and, because DVC takes long
to start, the stage alone in the other runs. A third of the kills fall at a time drawn evenly from the whole
run, the others in a phase that is drawn first, so that the short ones have their share. After each kill all
that is on the disk is examined without the library; whenever a run completes, its store must equal the quiet
one's to the byte, and the experiment starts over from nothing.
"""

import argparse
import hashlib
import logging
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import tables
from disk_state import (
    AFTER,
    FINALISE,
    INIT,
    OUTPUT,
    PARTITIONS,
    PHASES,
    PLAN,
    DiskState,
    count_records,
    examine,
    output_identity,
    phase_now,
    phase_of,
)
from workspace import (
    Content,
    Run,
    clone,
    content_of,
    differences,
    resumed_partitions,
    session_members,
    stage_process,
    start_dvc,
    start_stage,
    temporary_folder,
    wait_for,
)

from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore

KILLS_A_LIFE = (2, 5)
"""Before a run may complete and the next begins from nothing: at least, at most."""
ANYWHERE_SHARE = 0.35
"""Of the kills that fall anywhere in a run; the others fall in a phase of their choice."""
PHASE_WEIGHTS = {INIT: 1, PARTITIONS: 3, FINALISE: 1, AFTER: 1}
MAX_PROBLEMS = 10
"""After which there is no point in going on."""
GROUP, STAGE_ALONE = VICTIMS = ("group", "stage alone")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Quiet:
    """A run that nobody disturbs."""

    store: Content
    partitions: int
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One way to run the stage."""

    name: str
    start: Callable[[Path, Path], Run]
    """Takes the workspace and the log."""
    stage: Callable[[Run], int | None]
    """The stage's own process within the run, or ``None`` while there is none."""


def stage_tool(changes: Mapping[str, str]) -> Tool:
    """The stage by itself, with variables of the environment changed."""
    return Tool(
        name="stage", start=lambda at, log: start_stage(at, log, **changes), stage=lambda run: run.pid
    )


def dvc_tool(changes: Mapping[str, str]) -> Tool:
    """The stage as DVC runs it."""
    return Tool(name="dvc", start=lambda at, log: start_dvc(at, log, **changes), stage=stage_process)


@dataclass(frozen=True, kw_only=True)
class Aim:
    """When a kill is to fall: ``fraction`` of the way through a phase, or of the whole run if ``None``."""

    phase: str | None
    fraction: float


@dataclass(kw_only=True)
class Tally:
    """What was counted.

    Attributes:
        kills: By tool, victim and the phase in which they fell.
        found_again: Finished partitions that the next run did not have to compute.
        needless: Finished partitions that it computed again all the same.
        unusable: Records that a kill left unreadable, or without the shards that they describe.
        completed: Runs that completed with the quiet run's store.
        made_again: Finished stores that the next run made again, for DVC had not taken them yet.
        outlived: Kills of the stage alone after which other processes of the run were still there.
        orphaned: Those of them whose processes were there even when a later run had completed the store.
        problems: What must not be.
    """

    kills: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    found_again: int = 0
    needless: int = 0
    unusable: int = 0
    completed: int = 0
    made_again: int = 0
    outlived: int = 0
    orphaned: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A run and how it ended."""

    run: Run
    tool: Tool
    victim: str | None
    old_output: int | None


@dataclass(kw_only=True)
class Campaign:
    """Kill after kill on one workspace."""

    workspace: Path
    logs: Path
    reset: Callable[[], None]
    quiet: Mapping[str, Quiet]
    random: Random
    choose: Callable[[], tuple[Tool, bool]]
    tally: Tally = field(default_factory=Tally)
    runs: int = 0

    def run(self, kills: int) -> Tally:
        """Go on until ``kills`` have fallen, and a whole store has come out."""
        while (left := kills - sum(self.tally.kills.values())) > 0 and len(
            self.tally.problems
        ) < MAX_PROBLEMS:
            self.reset()
            self._live(min(left, self.random.randint(*KILLS_A_LIFE)))
        return self.tally

    def _live(self, kills: int) -> None:
        """From nothing to a whole store, through a few kills."""
        before = examine(self.workspace)
        strikes: list[Strike] = []
        while True:
            aim = self._aim() if len(strikes) < kills else None
            strike = self._strike(*self.choose(), aim)
            strikes.append(strike)
            after = examine(self.workspace)
            self._check_resumed(
                strike.run, before, after, exact=all(s.victim != STAGE_ALONE for s in strikes)
            )
            if strike.victim is None:
                break
            self._count(strike, strike.victim, after)
            before = after
        for strike in strikes:
            self.tally.orphaned += bool(session_members(strike.run))
            strike.run.kill()
        self._check_complete(strike)

    def _aim(self) -> Aim:
        anywhere = self.random.random() < ANYWHERE_SHARE
        (phase,) = self.random.choices(list(PHASE_WEIGHTS), weights=PHASE_WEIGHTS.values())
        return Aim(phase=None if anywhere else phase, fraction=self.random.random())

    def _strike(self, tool: Tool, whole_group: bool, aim: Aim | None) -> Strike:
        """Start a run and kill it where ``aim`` says, or leave it alone."""
        self.runs += 1
        old, begun = output_identity(self.workspace), count_records(self.workspace)
        run = tool.start(self.workspace, self.logs / f"{self.runs:03d}_{tool.name}.log")
        victim = None
        if aim:
            self._wait_for(run, self.quiet[tool.name], aim, begun, old)
            victim = self._kill(tool, run, whole_group=whole_group)
        # A run that had done its work when the signal came was not killed.
        return Strike(run=run, tool=tool, victim=victim if run.wait() else None, old_output=old)

    def _wait_for(self, run: Run, quiet: Quiet, aim: Aim, begun: int, old_output: int | None) -> None:
        """Sleep until the moment of the kill, or the end of the run."""

        def phase_reached() -> bool:
            now = phase_now(run, self.workspace, quiet.partitions, old_output)
            return aim.phase is None or PHASES.index(now) >= PHASES.index(aim.phase)

        wait_for(run, phase_reached)
        seconds = aim.fraction * (quiet.seconds[aim.phase] if aim.phase else sum(quiet.seconds.values()))
        if aim.phase == PARTITIONS:
            wanted = begun + int(aim.fraction * (quiet.partitions - begun))
            wait_for(run, lambda: count_records(self.workspace) >= wanted)
            seconds = self.random.random() * quiet.seconds[PARTITIONS] / quiet.partitions
        end = time.monotonic() + seconds
        wait_for(run, lambda: time.monotonic() >= end)

    def _kill(self, tool: Tool, run: Run, *, whole_group: bool) -> str | None:
        """Kill what is to be killed; returns what that was, ``None`` if the run has ended."""
        if run.poll() is not None:
            return None
        stage = None if whole_group else tool.stage(run)
        if stage is None:
            run.kill()
            return GROUP
        with suppress(ProcessLookupError):
            os.kill(stage, signal.SIGKILL)
        run.wait()
        self.tally.outlived += bool(session_members(run))
        return STAGE_ALONE

    def _check_resumed(self, run: Run, before: DiskState, after: DiskState, *, exact: bool) -> None:
        """Compare what a run took over with what was there; ``exact`` if nothing else wrote meanwhile."""
        resumed, whole = resumed_partitions(run), len(before.finished)
        if resumed is not None:
            self.tally.found_again += resumed
            self.tally.needless += max(0, whole - resumed)
            self.tally.made_again += before.output is not None
            if resumed < whole or (exact and resumed > whole):
                self._problem(run, f"{whole} partitions were whole, but {resumed} were taken over")
        again = [
            i for i in before.finished if i in after.finished and before.finished[i] != after.finished[i]
        ]
        self.tally.needless += len(again)
        if again:
            self._problem(run, f"finished partitions were written again: {again}")

    def _count(self, strike: Strike, victim: str, after: DiskState) -> None:
        phase = phase_of(strike.run, after, strike.old_output)
        self.tally.kills[strike.tool.name, victim, phase] += 1
        self.tally.unusable += len(after.damaged)
        if after.output is not None:
            # A run that replaces an old output may be killed while it removes that one.
            old = after.output == strike.old_output and is_refused(self.workspace / OUTPUT)
            if not old:
                self._compare(f"the output that a kill left ({strike.run.log.name})")
        number, finished = self.tally.kills.total(), len(after.finished)
        message = "kill %d: %s, %s, in %s; %d partitions finished"
        logger.info(message, number, strike.tool.name, victim, phase, finished)

    def _check_complete(self, strike: Strike) -> None:
        run = strike.run
        if run.poll() != 0:
            self._problem(run, f"ended with {run.poll()}: {run.last_line()}")
            return
        self.tally.completed += self._compare(f"the store of {run.log.name}")
        self.tally.problems += torn_objects(self.workspace)
        logger.info("complete: %s", run.log.name)

    def _compare(self, what: str) -> bool:
        """Whether the output equals the quiet runs'."""
        expected = next(iter(self.quiet.values())).store
        wrong = differences(content_of(self.workspace / OUTPUT), expected)
        if wrong:
            self.tally.problems.append(f"{what} differs from the quiet run's: {wrong}")
        return not wrong

    def _problem(self, run: Run, message: str) -> None:
        logger.error("%s: %s", run.log.name, message)
        self.tally.problems.append(f"{run.log.name}: {message}")


def is_refused(store: Path) -> bool:
    """Whether no student would read a store."""
    try:
        TargetStore.open(store)
    except CacheError:
        return True
    return False


def torn_objects(workspace: Path) -> list[str]:
    """Objects in DVC's cache whose content is not what their name says.

    They are hard links of the workspace's files: whoever writes one of these in place changes them, too.
    """
    objects = [path for path in (workspace / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    return [
        f"an object in DVC's cache has other content than it is named by: {path}"
        for path in objects
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name.removesuffix(".dir")
    ]


def watch(tool: Tool, workspace: Path, log: Path) -> Quiet:
    """Run undisturbed, and note when each phase begins."""
    begun = {PLAN: time.monotonic()}
    old = output_identity(workspace)
    run = tool.start(workspace, log)
    partitions = sys.maxsize
    while run.poll() is None:
        state = phase_now(run, workspace, partitions, old)
        if state == PARTITIONS and partitions == sys.maxsize:
            partitions = examine(workspace).partitions or partitions
        begun.setdefault(state, time.monotonic())
        time.sleep(0.001)
    if run.poll():
        raise RuntimeError(f"the quiet run ended with {run.poll()}:\n{run.text()[-2000:]}")
    ends = [begun.get(phase, time.monotonic()) for phase in PHASES[1:]] + [time.monotonic()]
    seconds = {phase: max(0.0, end - begun.get(phase, end)) for phase, end in zip(PHASES, ends, strict=True)}
    logger.info("quiet run of %s: %s", tool.name, {name: round(value, 2) for name, value in seconds.items()})
    return Quiet(store=content_of(workspace / OUTPUT), partitions=partitions, seconds=seconds)


def tally_tables(tally: Tally, quiet: Mapping[str, Quiet]) -> list[str]:
    """The figures of a campaign."""
    phases = [
        [name, run.partitions, *(f"{run.seconds[phase]:.2f}" for phase in PHASES)]
        for name, run in quiet.items()
    ]
    groups = sorted({(tool, victim) for tool, victim, _ in tally.kills})
    counts = {group: [tally.kills[(*group, phase)] for phase in PHASES] for group in groups}
    kills: list[list[object]] = [[*group, *row, sum(row)] for group, row in counts.items()]
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    figures = [
        ["finished partitions that the next run took over", tally.found_again],
        ["finished partitions computed again needlessly (must be 0)", tally.needless],
        ["records left without their shards (none may be taken over)", tally.unusable],
        ["runs completed, store equal to the quiet run's in every byte", tally.completed],
        ["whole stores in place that the next run made again (killed in `after`)", tally.made_again],
        ["kills of the stage alone that other processes of the run outlived at first", tally.outlived],
        ["the same, until a later run had completed the store", tally.orphaned],
    ]
    return [
        tables.render(["quiet run", "partitions", *(f"{phase}, s" for phase in PHASES)], phases),
        tables.render(["run", "killed", *PHASES, "all"], [*kills, ["all", "", *total, sum(total)]]),
        tables.render(["", "figure"], figures),
    ]


def resetter(workspace: Path) -> Callable[[], None]:
    """What takes a workspace back to how it is now: without a store, and DVC knowing nothing of one."""
    lock = workspace / "dvc.lock"
    text = lock.read_text() if lock.exists() else None
    known = set((workspace / ".dvc").rglob("*"))

    def reset() -> None:
        for folder in ("cache", "scratch"):
            shutil.rmtree(workspace / folder, ignore_errors=True)
        for path in sorted(set((workspace / ".dvc").rglob("*")) - known, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if text is not None:
            lock.write_text(text)

    return reset


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = tables.parser(__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=30, help="how many; default: %(default)s")
    add("--seed", type=int, default=0, help="of all that is drawn; default: %(default)s")
    add("--partitions", type=int, default=30, help="of the store; default: %(default)s")
    add("--workers", type=int, help="LDP_CACHE_WORKERS of the stage; default: not set")
    add("--dvc-share", type=float, default=0.4, help="of runs by `dvc repro`; default: %(default)s")
    add("--alone-share", type=float, default=0.4, help="of kills of the stage's process alone; default: 0.4")
    add("--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it")
    return parser.parse_args()


def main() -> int:
    """Run the experiment."""
    options = arguments()
    tables.start_logging()
    changes = {} if options.workers is None else {"LDP_CACHE_WORKERS": str(options.workers)}
    stage, dvc = stage_tool(changes), dvc_tool(changes)
    random = Random(options.seed)

    def choose() -> tuple[Tool, bool]:
        tool = dvc if random.random() < options.dvc_share else stage
        return tool, random.random() >= options.alone_share

    with temporary_folder(options.keep) as folder:
        logger.info("preparing a workspace in %s", folder)
        workspace = clone(folder, options.partitions)
        reset = resetter(workspace)
        quiet = {}
        for tool in (stage, dvc):
            reset()
            quiet[tool.name] = watch(tool, workspace, folder / f"quiet_{tool.name}.log")
        campaign = Campaign(
            workspace=workspace, logs=folder, reset=reset, quiet=quiet, random=random, choose=choose
        )
        tally = campaign.run(options.kills)
        if quiet["stage"].store != quiet["dvc"].store:
            tally.problems.append("two quiet runs differ")
        title = f"kills.py --kills {options.kills} --seed {options.seed}, workers: {options.workers}"
        return tables.report(title, tally_tables(tally, quiet), tally.problems)


if __name__ == "__main__":
    sys.exit(main())
