"""On a full disk the stage ends with one line that says where and what to do; with room again it goes on.

The scratch folder and the output lie on a small tmpfs, which needs root. It runs out of bytes, because
somebody else fills it while the stage writes, or out of inodes, which stops the stage at the same place each
time. ``LDP_STRESS=2`` tries every case; without root, a limit on the size of a file stands for the disk's.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from finished import file_size_limit
from forked import Fate, Run, start
from store_cases import content_of, random_store_case, write_one, write_remaining
from workspace import (
    FINALISE,
    INIT,
    OUTPUT,
    PARTITIONS,
    PLAN,
    STAGE,
    WRITE,
    Quiet,
    examine,
    phase_of,
    resumed,
    start_and_stop,
)

from pipeline.core.errors import OutputError
from pipeline.store.writer.writer import finished_partitions, init

SCRATCH, CACHE = Path("scratch"), OUTPUT.parent
PLENTY = "size=64m,nr_inodes=100000"
BYTES = "size=16m,nr_inodes=100000"


class SmallDisk:
    """A tmpfs that becomes larger on request, with the workspace's empty folders on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, workspace: Path, options: str, folders: Sequence[Path] = (SCRATCH, CACHE)) -> None:
        self.resize(options)
        for name in folders:
            (self.folder / name.name).mkdir()
            shutil.rmtree(workspace / name, ignore_errors=True)
            (workspace / name).symlink_to(self.folder / name.name)

    def resize(self, options: str) -> None:
        """Mount it with other limits; what is on it stays."""
        command = ["mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def fill(self) -> None:
        """Take all of the bytes that are left."""
        block = bytes(4096)
        with suppress(OSError), (self.folder / "ballast").open("ab", buffering=0) as file:
            while file.write(block):
                pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", PLENTY, "ldp_stress", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(folder)
    # Lazily: a stage that is still at work would keep it busy.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to run out of room.

    Attributes:
        name: For people.
        phases: In which the run may end.
        options: The disk's limits at first; ``{n}`` is ``inodes`` of the number that the whole store needs.
        fill_at: Somebody takes all bytes once so many partitions are finished; ``None`` if nobody does.
        relief: Bytes that become free in the end; ``None`` for plenty.
        folders: Which lie on the small disk.
        large: Whether it is for the large experiment alone.
    """

    name: str
    phases: tuple[str, ...]
    options: str = BYTES
    inodes: float = 0.0
    fill_at: int | None = None
    relief: int | None = None
    folders: tuple[Path, ...] = (SCRATCH, CACHE)
    large: bool = True


NO_INODES = "size=64m,nr_inodes={n}"
CASES = [
    Case(name="the plan", phases=(PLAN, INIT), options="size=64k,nr_inodes=100000", large=False),
    Case(name="no bytes at 3", phases=(WRITE, FINALISE), fill_at=3, large=False),
    Case(name="no bytes at 1", phases=(WRITE, FINALISE), fill_at=1),
    Case(name="no bytes near the end", phases=(WRITE, FINALISE), fill_at=PARTITIONS - 4),
    Case(name="enough for the rest", phases=(WRITE, FINALISE), fill_at=PARTITIONS - 4, relief=200_000),
    Case(name="nearly enough inodes", phases=(WRITE, FINALISE), options=NO_INODES, inodes=0.9, large=False),
    *(
        Case(name=f"inodes, {share}", phases=(INIT, WRITE, FINALISE), options=NO_INODES, inodes=share)
        for share in (0.1, 0.3, 0.5, 0.7)
    ),
    Case(name="the output's disk", phases=(FINALISE,), options=NO_INODES, inodes=0.5, folders=(CACHE,)),
]


def ended_for_lack_of_room(run: Run) -> str:
    """The one line that says what could not be written, and what to do."""
    assert run.wait() == 1
    line = run.last_line()
    assert "Traceback" not in run.text()
    assert line.startswith("error: ")
    assert "scratch" in line or "cache" in line
    assert "free" in line or "make room" in line
    return line


def goes_on(workspace: Path, run: Run, finished: int, quiet: Quiet) -> None:
    """With room, a run takes over what was finished, to the bytes of the undisturbed one."""
    assert run.wait() == 0, run.text()[-1000:]
    assert (resumed(run) or 0) >= finished
    assert content_of(workspace / OUTPUT) == quiet.store


@pytest.fixture(scope="session")
def needed_inodes(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The most that are in use at any time in a run that has plenty."""
    workspace = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("plenty") / "workspace"))
    run, needed = STAGE.start(workspace, workspace.parent / "log"), 0
    while run.poll() is None:
        with suppress(FileNotFoundError):
            needed = max(needed, sum(1 for at in (SCRATCH, CACHE) for _ in (workspace / at).rglob("*")))
    assert run.poll() == 0
    return needed + 3  # the disk's root, and both folders


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_full_disk_costs_no_finished_partition(
    case: Case, workspace: Path, quiet: Quiet, disk: SmallDisk, needed_inodes: int, factor: int
) -> None:
    if case.large and factor == 1:
        pytest.skip("LDP_STRESS=2 and more")
    (workspace / CACHE).parent.mkdir(exist_ok=True)
    disk.place(workspace, case.options.format(n=int(case.inodes * needed_inodes)), case.folders)
    if case.fill_at is None:
        run = STAGE.start(workspace, workspace.parent / "full.log")
    else:
        run = start_and_stop(workspace, case.fill_at)
        disk.fill()
        run.signal(signal.SIGCONT)
    line = ended_for_lack_of_room(run)
    if case.name == "the plan":
        assert line.startswith("error: scratch: expected room for about ")
        assert "are free; free some" in line
    assert phase_of(run, workspace, None) in case.phases
    finished = examine(workspace).finished
    ended_for_lack_of_room(STAGE.start(workspace, workspace.parent / "still full.log"))
    assert finished.items() <= examine(workspace).finished.items()
    used = shutil.disk_usage(disk.folder).used
    disk.resize(PLENTY if case.relief is None else f"size={used + case.relief}")
    goes_on(workspace, STAGE.start(workspace, workspace.parent / "room.log"), len(finished), quiet)


@pytest.mark.slow
@pytest.mark.parametrize("phases", [(INIT, WRITE), (FINALISE,)])
def test_a_limit_on_the_size_of_a_file_is_like_a_full_disk(
    workspace: Path, quiet: Quiet, phases: tuple[str, ...]
) -> None:
    """Below the largest shard, or below the root's metadata, which `finalise` writes."""
    largest = max(len(content) for name, content in quiet.store.items() if "points/edge_codes/c/" in name)
    limit = (len(quiet.store["zarr.json"]) if FINALISE in phases else largest) - 1
    run = start("cache_teacher", workspace, workspace.parent / "limited.log", Fate(max_file_bytes=limit))
    ended_for_lack_of_room(run)
    assert phase_of(run, workspace, None) in phases
    finished = len(examine(workspace).finished)
    goes_on(workspace, STAGE.start(workspace, workspace.parent / "room.log"), finished, quiet)


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store_case = random_store_case(6, views_per_partition=3, most_points=60)
    init(tmp_path, store_case.schema, store_case.table)
    write_one(tmp_path, store_case, 0)
    with file_size_limit(500), pytest.raises(OutputError, match=r"store\.zarr/points/.*/c/1/0 could not be"):
        write_one(tmp_path, store_case, 1)
    assert finished_partitions(tmp_path) == {0}
    assert not list(tmp_path.rglob("*.partial"))


def test_a_disk_that_is_full_in_init_or_finalise_is_said_so(tmp_path: Path) -> None:
    store_case = random_store_case(6, views_per_partition=3, most_points=60)
    expected = tmp_path / "expected.zarr"
    write_remaining(tmp_path / "quiet", expected, store_case)
    scratch, output = tmp_path / "scratch", tmp_path / "targets.zarr"
    with file_size_limit(60), pytest.raises(OutputError, match=r"store\.zarr\.partial could not be written"):
        write_remaining(scratch, output, store_case)
    largest_shard = max(path.stat().st_size for path in expected.glob("*/*/c/*/0"))
    root = (expected / "zarr.json").stat().st_size
    assert largest_shard < root
    with file_size_limit(root - 1), pytest.raises(OutputError, match=r"store\.zarr/zarr\.json could not be"):
        write_remaining(scratch, output, store_case)
    assert write_remaining(scratch, output, store_case) == set(range(store_case.schema.partitions))
    assert content_of(output) == content_of(expected)
