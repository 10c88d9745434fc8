"""On a full disk the stage ends with one line that says where and what to do; with room again it goes on.

The scratch folder and the output lie on a small tmpfs, which needs root. It runs out of bytes, because
somebody else fills it while the stage writes, or out of inodes, which stops the stage at the same place each
time. ``LDP_STRESS=2`` tries every case. Without root, a limit on the size of a file stands for the disk's,
where the writer meets it.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from finished import file_size_limit
from forked import Run
from store_cases import Content, content_of, random_store_case, write_one, write_remaining
from workspace import FACTOR, OUTPUT, PARTITIONS, begin, begin_and_stop, complete, finished

from pipeline.core.errors import OutputError
from pipeline.store.writer.writer import finished_partitions, init

SCRATCH, CACHE = Path("scratch"), OUTPUT.parent
PLENTY = "size=64m,nr_inodes=100000"


class Case(NamedTuple):
    """One way to run out of room."""

    options: str = "size=16m,nr_inodes=100000"
    """The disk's limits at first."""
    inodes: float = 0.0
    """Of the number that the whole store needs; no limit if 0."""
    fill_at: int | None = None
    """Somebody takes all bytes once so many partitions are finished."""
    relief: int | None = None
    """Bytes that become free in the end; ``None`` for plenty."""
    folders: tuple[Path, ...] = (SCRATCH, CACHE)
    """Those that lie on the small disk."""


CASES = {
    "the plan": Case(options="size=64k,nr_inodes=100000"),
    "no bytes at 3": Case(fill_at=3),
    "nearly enough inodes": Case(inodes=0.9),
    "no bytes near the end": Case(fill_at=PARTITIONS - 4),
    "enough for the rest": Case(fill_at=PARTITIONS - 4, relief=200_000),
    "few inodes": Case(inodes=0.1),
    "half of the inodes": Case(inodes=0.5),
    "the output's disk": Case(inodes=0.5, folders=(CACHE,)),
}
QUICK = tuple(CASES)[:3]


class SmallDisk:
    """A tmpfs that becomes larger on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, folder: Path) -> None:
        """Let an empty folder lie on it."""
        (self.folder / folder.name).mkdir()
        shutil.rmtree(folder, ignore_errors=True)
        folder.symlink_to(self.folder / folder.name)

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


def ended_for_lack_of_room(run: Run) -> str:
    """The one line that says what could not be written, and what to do."""
    assert run.wait() == 1
    line = run.last_line()
    assert "Traceback" not in run.text()
    assert line.startswith("error: ")
    assert "scratch" in line or "cache" in line
    assert "free" in line or "make room" in line
    return line


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK if FACTOR == 1 else CASES)
def test_a_full_disk_costs_no_finished_partition(
    name: str, workspace: Path, quiet: Content, disk: SmallDisk
) -> None:
    case = CASES[name]
    if case.inodes:  # each file, its folders, and the records
        needed = len(quiet) + len({folder for path in quiet for folder in Path(path).parents}) + PARTITIONS
    disk.resize(f"size=64m,nr_inodes={int(case.inodes * needed)}" if case.inodes else case.options)
    for folder in case.folders:
        disk.place(workspace / folder)
    run = begin(workspace) if case.fill_at is None else begin_and_stop(workspace, case.fill_at)
    if case.fill_at:
        disk.fill()
        run.signal(signal.SIGCONT)
    line = ended_for_lack_of_room(run)
    if name == "the plan":
        assert line.startswith("error: scratch: expected room for about ")
        assert "are free; free some" in line
    whole = finished(workspace)
    ended_for_lack_of_room(begin(workspace))
    assert whole.items() <= finished(workspace).items()
    used = shutil.disk_usage(disk.folder).used
    disk.resize(PLENTY if case.relief is None else f"size={used + case.relief}")
    assert (complete(workspace) or 0) >= len(whole)
    assert content_of(workspace / OUTPUT) == quiet


def test_what_cannot_be_written_is_named_leaves_nothing_behind_and_is_made_up_for_later(
    tmp_path: Path,
) -> None:
    store_case = random_store_case(6, views_per_partition=3, most_points=60)
    expected = tmp_path / "expected.zarr"
    write_remaining(tmp_path / "quiet", expected, store_case)
    scratch, output = tmp_path / "scratch", tmp_path / "targets.zarr"
    with file_size_limit(60), pytest.raises(OutputError, match=r"store\.zarr\.partial could not be written"):
        write_remaining(scratch, output, store_case)
    init(scratch, store_case.schema, store_case.table)
    write_one(scratch, store_case, 0)
    with file_size_limit(500), pytest.raises(OutputError, match=r"store\.zarr/.*/c/1/0 could not be"):
        write_one(scratch, store_case, 1)
    assert finished_partitions(scratch) == {0}
    assert not list(scratch.rglob("*.partial"))
    largest_shard = max(path.stat().st_size for path in expected.glob("*/*/c/*/0"))
    root = (expected / "zarr.json").stat().st_size
    assert largest_shard < root
    with file_size_limit(root - 1), pytest.raises(OutputError, match=r"store\.zarr/zarr\.json could not be"):
        write_remaining(scratch, output, store_case)
    assert not list(scratch.rglob("*.partial"))
    assert write_remaining(scratch, output, store_case) == set(range(store_case.schema.partitions))
    assert content_of(output) == content_of(expected)
