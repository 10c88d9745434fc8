"""Let the disk run full in every phase of the stage, make room, and go on.

    uv run python tests/stress/full_disk.py
    uv run python tests/stress/full_disk.py --without-root

The scratch folder and the output lie on a small tmpfs. It runs out of bytes, because somebody else fills it
while the stage writes, or out of inodes, which stops the stage at the same place each time. The stage must
end with exit code 1 and one line that names what could not be written and says what to do; no finished
partition may be lost; after `mount -o remount` with more room the next run continues, and the store equals
that of an undisturbed run to the byte. Mounting needs root: where it is not allowed, the exit code is 77.
Without root, a limit on the size of a file (RLIMIT_FSIZE) takes the place of the disk's.
"""

import argparse
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tables
from disk_state import (
    FINALISE,
    INIT,
    OUTPUT,
    PARTITIONS,
    PLAN,
    DiskState,
    count_records,
    examine,
    phase_of,
)
from kills import Quiet, Tool, stage_tool, watch
from workspace import (
    STAGE,
    Run,
    clone,
    content_of,
    differences,
    resumed_partitions,
    start,
    temporary_folder,
    wait_for,
)

SKIPPED = 77
"""The exit code of a test that cannot be run here, as automake has it."""
FOLDERS = ("scratch", "cache")
PLENTY = "size=64m,nr_inodes=100000"
INODE_SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
"""Of the inodes that the whole store needs: where the disk without inodes stops the stage."""
BALLAST = "ballast"
LAST = 4
"""So many partitions are to be written yet when the disk fills late."""
ROOM_FOR_THE_REST = 200_000
"""Bytes: more than they and the root's metadata take, and less than the plan says of the whole store."""
WHAT_TO_DO = ("free", "make room")
LIMITED = """
import os, resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""A program: limits the size of a file, and becomes the command that follows."""

logger = logging.getLogger(__name__)


class SmallDisk:
    """A tmpfs that becomes larger on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def resize(self, options: str) -> None:
        """Mount it with other limits; what is on it stays."""
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self) -> None:
        """Take all of the bytes that are left."""
        block = bytes(4096)
        with suppress(OSError), (self.folder / BALLAST).open("ab", buffering=0) as file:
            while file.write(block):
                pass

    def used_bytes(self) -> int:
        return shutil.disk_usage(self.folder).used

    def inodes(self) -> int:
        """How many there are in use, the root's own included."""
        return 1 + sum(1 for _ in self.folder.rglob("*"))

    def clear(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a tmpfs.

    Raises:
        PermissionError: Mounting is not allowed here.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", PLENTY, "ldp_stress", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        raise PermissionError(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a stage that is still at work would keep it busy.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to run out of room.

    Attributes:
        name: For the table.
        folders: Which lie on the small disk.
        options: The disk's limits at first.
        fill_at: Somebody takes all bytes once so many partitions are finished; ``None`` if nobody does.
        relief: Bytes that become free in the end; ``None`` for plenty.
        phases: In which the run may end.
    """

    name: str
    options: str
    phases: tuple[str, ...]
    folders: tuple[str, ...] = FOLDERS
    fill_at: int | None = None
    relief: int | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A run that ended for lack of room."""

    phase: str
    state: DiskState
    line: str
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a case."""

    phase: str
    finished: int
    resumed: int | None
    line: str
    problems: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A prepared workspace and the undisturbed run to compare with."""

    workspace: Path
    logs: Path
    tool: Tool
    quiet: Quiet

    def clear(self) -> None:
        """Remove what an earlier case left."""
        for name in FOLDERS:
            path = self.workspace / name
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)

    def run_case(self, case: Case, disk: SmallDisk) -> Result:
        """Let the disk run full, run again without more room, make room, and run to the end."""
        self.place(disk, case.options, case.folders)
        run = self.start(case, "full")
        if case.fill_at is not None:
            wait_for(run, lambda: count_records(self.workspace) >= (case.fill_at or 0))
            disk.fill()
        seen = self.look(case, run)
        self.look_again(seen, self.start(case, "still full"))
        disk.resize(PLENTY if case.relief is None else f"size={disk.used_bytes() + case.relief}")
        return self.finish(case, seen, self.start(case, "with room"))

    def place(self, disk: SmallDisk, options: str, folders: Sequence[str]) -> None:
        """Put empty folders of the workspace on the small disk."""
        self.clear()
        disk.clear()
        disk.resize(options)
        for name in folders:
            (disk.folder / name).mkdir()
            (self.workspace / name).symlink_to(disk.folder / name)

    def start(self, case: Case, when: str) -> Run:
        return self.tool.start(self.workspace, self.logs / f"{case.name}, {when}.log")

    def look(self, case: Case, run: Run) -> Seen:
        """Look at a run that must fail."""
        problems = complaint_problems(run, self.workspace)
        state = examine(self.workspace)
        phase = phase_of(run, state, None)
        if phase not in case.phases:
            problems.append(f"expected an end in {case.phases}, but got {phase}")
        logger.info("%s: in %s, %s", case.name, phase, run.last_line())
        return Seen(phase=phase, state=state, line=run.last_line(), problems=problems)

    def look_again(self, seen: Seen, run: Run) -> None:
        """Look at the next run, which has no more room than the first."""
        seen.problems.extend(complaint_problems(run, self.workspace))
        after = examine(self.workspace).finished
        gone = [index for index, known in seen.state.finished.items() if after.get(index) != known]
        if gone:
            seen.problems.append(f"finished partitions were lost: {gone}")

    def finish(self, case: Case, seen: Seen, run: Run) -> Result:
        """Look at a run that has room: it must continue to the bytes of the undisturbed one."""
        problems = [*seen.problems]
        if run.wait():
            problems.append(f"with room again, it ended with {run.poll()}: {run.last_line()}")
        elif wrong := differences(content_of(self.workspace / OUTPUT), self.quiet.store):
            problems.append(f"the store differs: {wrong}")
        resumed, finished = resumed_partitions(run), len(seen.state.finished)
        if resumed is None or resumed < finished:
            problems.append(f"{finished} partitions were finished, {resumed} were taken over")
        for problem in problems:
            logger.error("%s: %s", case.name, problem)
        return Result(phase=seen.phase, finished=finished, resumed=resumed, line=seen.line, problems=problems)


def complaint_problems(run: Run, workspace: Path) -> list[str]:
    """What is wrong with how a run without room ended."""
    code, last = run.wait(), run.last_line()
    problems = []
    if code != 1:
        problems.append(f"expected exit code 1, but got {code}")
    if "Traceback" in run.text() or not last.startswith("error: "):
        problems.append(f"expected one line that begins with 'error: ', but got {last!r}")
    if not any(name in last for name in FOLDERS):
        problems.append(f"expected a line that names {' or '.join(FOLDERS)} in {workspace}, but got {last!r}")
    if not any(words in last for words in WHAT_TO_DO):
        problems.append(f"expected a line that says what to do, but got {last!r}")
    return problems


def disk_cases(quiet: Quiet, inodes: int) -> list[Case]:
    """All ways for a disk to be full, for a store that needs so many inodes."""
    return [
        Case(name="the plan does not fit", options="size=128k,nr_inodes=100000", phases=(PLAN, INIT)),
        *(
            Case(
                name=f"no bytes after {number} partitions",
                options="size=16m,nr_inodes=100000",
                fill_at=number,
                phases=(PARTITIONS, FINALISE),
            )
            for number in sorted({1, quiet.partitions // 3, quiet.partitions - LAST})
        ),
        Case(
            name="no bytes, then enough for the rest",
            options="size=16m,nr_inodes=100000",
            fill_at=quiet.partitions - LAST,
            relief=ROOM_FOR_THE_REST,
            phases=(PARTITIONS, FINALISE),
        ),
        *(
            Case(
                name=f"inodes: {share:.0%} of what is needed",
                options=f"size=64m,nr_inodes={int(share * inodes)}",
                phases=(INIT, PARTITIONS, FINALISE),
            )
            for share in INODE_SHARES
        ),
        Case(
            name="the output's disk is another, and full",
            options=f"size=64m,nr_inodes={inodes // 2}",
            folders=("cache",),
            phases=(FINALISE,),
        ),
    ]


def needed_inodes(bench: Bench, disk: SmallDisk) -> int:
    """The most that are in use at any time in a run that has plenty."""
    bench.place(disk, PLENTY, FOLDERS)
    run, most = bench.tool.start(bench.workspace, bench.logs / "plenty.log"), 0
    while run.poll() is None:
        with suppress(FileNotFoundError):
            most = max(most, disk.inodes())
    if run.wait():
        raise RuntimeError(f"with plenty of room the run ended with {run.poll()}: {run.last_line()}")
    return most


def limited_cases(quiet: Quiet) -> list[tuple[Case, int]]:
    """A limit below the largest shard, and one below the root's metadata, which `finalise` writes."""
    shards = [
        len(content) for name, content in quiet.store.items() if name.startswith("points/edge_codes/c/")
    ]
    root = len(quiet.store["zarr.json"])
    assert max(shards) < root, "a limit that stops finalise alone needs shards smaller than the metadata"
    return [
        (Case(name="no file beyond the largest shard", options="", phases=(PARTITIONS,)), max(shards) - 1),
        (Case(name="no file as large as the metadata", options="", phases=(FINALISE,)), root - 1),
    ]


def run_limited(bench: Bench, case: Case, limit: int) -> Result:
    """A case without a small disk: no file may be larger than ``limit`` bytes, until it may."""
    bench.clear()

    def start_limited(when: str) -> Run:
        command = (sys.executable, "-c", LIMITED, str(limit), "-m", STAGE)
        return start(bench.workspace, bench.logs / f"{case.name}, {when}.log", *command)

    seen = bench.look(case, start_limited("limited"))
    bench.look_again(seen, start_limited("still limited"))
    return bench.finish(case, seen, bench.start(case, "without the limit"))


def result_tables(results: Mapping[str, Result], partitions: int) -> list[str]:
    """The figures, and what the stage said."""
    rows = [
        [name, result.phase, f"{result.finished} of {partitions}", result.resumed, len(result.problems)]
        for name, result in results.items()
    ]
    said = [[name, result.line] for name, result in results.items()]
    return [
        tables.render(["the disk is full", "ended in", "finished then", "taken over later", "wrong"], rows),
        tables.render(["the disk is full", "what the stage said"], said),
    ]


def run_all(bench: Bench, folder: Path, *, without_root: bool) -> dict[str, Result]:
    """Every case.

    Raises:
        PermissionError: Mounting is not allowed here.
    """
    if without_root:
        return {case.name: run_limited(bench, case, limit) for case, limit in limited_cases(bench.quiet)}
    with small_disk(folder / "small") as disk:
        cases = disk_cases(bench.quiet, needed_inodes(bench, disk))
        return {case.name: bench.run_case(case, disk) for case in cases}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = tables.parser(__doc__)
    add = parser.add_argument
    add("--partitions", type=int, default=30, help="of the store; default: %(default)s")
    add("--workers", type=int, help="LDP_CACHE_WORKERS of the stage; default: not set")
    add("--without-root", action="store_true", help="limit the size of a file instead of mounting a disk")
    add("--keep", type=Path, metavar="FOLDER", help="work in this new folder, and leave it")
    return parser.parse_args()


def main() -> int:
    """Run the experiment."""
    options = arguments()
    tables.start_logging()
    # Terminated, it would leave the disk mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    changes = {} if options.workers is None else {"LDP_CACHE_WORKERS": str(options.workers)}
    tool = stage_tool(changes)
    with temporary_folder(options.keep) as folder:
        try:
            if not options.without_root:
                with small_disk(folder / "tried"):
                    pass
            logger.info("preparing a workspace in %s", folder)
            workspace = clone(folder, options.partitions)
            quiet = watch(tool, workspace, folder / "quiet.log")
            bench = Bench(workspace=workspace, logs=folder, tool=tool, quiet=quiet)
            results = run_all(bench, folder, without_root=options.without_root)
        except PermissionError as error:
            logger.error("%s; try --without-root", error)
            return SKIPPED
        bench.clear()
    title = f"full_disk.py{' --without-root' if options.without_root else ''}, workers: {options.workers}"
    problems = [f"{name}: {problem}" for name, result in results.items() for problem in result.problems]
    return tables.report(title, result_tables(results, quiet.partitions), problems)


if __name__ == "__main__":
    sys.exit(main())
