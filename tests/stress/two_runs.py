"""Start the stage twice in one workspace: one run works, the other says so and ends, the store is whole.

    uv run python tests/stress/two_runs.py --rounds 6 --seed 0

In half of the rounds both begin at the same moment; in the others the second one comes to the lock at a
random moment of the first one's life, its last moments included. Whoever comes second is refused with one
line and exit code 1; if it comes when the first one has ended, it makes the store again. Then the same with
`dvc repro`, which has a lock and a message of its own.
"""

import argparse
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import tables
from disk_state import AFTER, OUTPUT, PLAN, scratch_folders
from kills import Quiet, Tool, dvc_tool, resetter, stage_tool, watch
from workspace import Run, clone, content_of, differences, temporary_folder, wait_for

WORKED, REFUSED, FAILED = OUTCOMES = ("worked", "refused", "failed")
REFUSALS = ("another run is writing to", "another run has just finished with")
DVC_REFUSALS = ("Unable to acquire lock", "is busy, it is being", "Another DVC process")

LOCK_FILE = "lock"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Round:
    """Two runs of one workspace."""

    outcomes: tuple[str, str]
    problems: Sequence[str]


def outcome_of(run: Run) -> str:
    """What became of a run."""
    if run.wait() == 0:
        return WORKED
    last = run.last_line()
    by_stage = last.startswith("error: ") and any(text in last for text in REFUSALS)
    by_dvc = any(text in run.text() for text in DVC_REFUSALS)
    return REFUSED if "Traceback" not in run.text() and (by_stage or by_dvc) else FAILED


def run_twice(workspace: Path, tool: Tool, quiet: Quiet, delay: float | None, logs: Path) -> Round:
    """Start a run, and another one ``delay`` seconds later; at the same moment if ``None``."""
    first = tool.start(workspace, logs / f"{tool.name}_first.log")
    if delay is not None:
        end = time.monotonic() + delay
        wait_for(first, lambda: time.monotonic() >= end)
    second = tool.start(workspace, logs / f"{tool.name}_second.log")
    outcomes = (outcome_of(first), outcome_of(second))
    logger.info("%s, %s: %s", tool.name, "together" if delay is None else f"after {delay:.1f} s", outcomes)
    runs = zip((first, second), outcomes, strict=True)
    problems = [f"failed: {run.last_line()}" for run, outcome in runs if outcome == FAILED]
    if WORKED not in outcomes:
        problems.append("neither worked")
    if delay is None and REFUSED not in outcomes:
        problems.append("none of two at the same moment was refused")
    wrong = differences(content_of(workspace / OUTPUT), quiet.store)
    if wrong:
        problems.append(f"the store differs: {wrong}")
    # A refused run that came to the lock as the other one removed the folder leaves an empty one.
    left = [path.name for scratch in scratch_folders(workspace) for path in scratch.iterdir()]
    if set(left) - {LOCK_FILE}:
        problems.append(f"the scratch folder is left with {left}")
    return Round(outcomes=outcomes, problems=problems)


def result_table(rounds: Sequence[tuple[str, Round]]) -> str:
    """How often what came of two runs."""
    counts = Counter((name, result.outcomes) for name, result in rounds)
    rows = [[name, first, second, number] for (name, (first, second)), number in sorted(counts.items())]
    return tables.render(["two runs", "the first", "the second", "times"], rows)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = tables.parser(__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=6, help="of two runs of the stage; default: %(default)s")
    add("--dvc-rounds", type=int, default=2, help="of two runs of DVC; default: %(default)s")
    add("--seed", type=int, default=0, help="of the delays; default: %(default)s")
    add("--partitions", type=int, default=30, help="of the store; default: %(default)s")
    add("--workers", type=int, help="LDP_CACHE_WORKERS of the stage; default: not set")
    add("--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it")
    return parser.parse_args()


def main() -> int:
    """Run the experiment."""
    options = arguments()
    tables.start_logging()
    changes = {} if options.workers is None else {"LDP_CACHE_WORKERS": str(options.workers)}
    random, rounds = Random(options.seed), []
    with temporary_folder(options.keep) as folder:
        logger.info("preparing a workspace in %s", folder)
        workspace = clone(folder, options.partitions)
        reset = resetter(workspace)
        quiet = watch(stage_tool(changes), workspace, folder / "quiet.log")
        # The first run comes to the lock once it has planned, and so does the second.
        life = sum(seconds for phase, seconds in quiet.seconds.items() if phase not in (PLAN, AFTER))
        for number in range(options.rounds + options.dvc_rounds):
            tool = stage_tool(changes) if number < options.rounds else dvc_tool(changes)
            delay = random.uniform(0, 1.2 * life) if number % 2 else None
            reset()
            result = run_twice(workspace, tool, quiet, delay, folder)
            rounds.append((f"{tool.name}, {'one later' if number % 2 else 'together'}", result))
    problems = [f"{name}: {problem}" for name, result in rounds for problem in result.problems]
    title = f"two_runs.py --rounds {options.rounds} --dvc-rounds {options.dvc_rounds} --seed {options.seed}"
    return tables.report(title, [result_table(rounds)], problems)


if __name__ == "__main__":
    sys.exit(main())
