"""Whatever a power cut leaves of unsynced writes, records tell the truth and the next run ends the same.

A small store is written once while every fsync, rename, link, removal and new folder is recorded, together
with all that is visible at that moment and all that has been forced to the disk. From some moments, or with
``LDP_STRESS=1000`` from all, the disk after a power cut is made up, in four ways:

    ordered    names are as they were; a file that was not fsynced is empty
    torn       the same, but such a file is cut in half
    strict     only what was fsynced is there: data by the file's fsync, names by that of their folder
    scattered  of each name that was changed since its folder's fsync, the old or the new state by chance
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from store_cases import StoreCase, content_of, random_store_case, write_one, write_remaining
from workspace import FACTOR, is_whole

from pipeline.core.errors import CacheError
from pipeline.core.files import write_atomically
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.writer import init

STORE = "store.zarr"
SCRATCH_FOLDER, OUTPUT = Path("scratch/0123456789abcdef"), Path("cache/targets.zarr")
PATCHED = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")
ORDERED, TORN, STRICT, SCATTERED = MODELS = ("ordered", "torn", "strict", "scattered")
MAX_MOMENTS = 8
"""Of each recorded run, times ``LDP_STRESS``."""

Tree = dict[str, bytes | None]
"""What is on a disk: content by path, ``None`` for a folder; a folder comes before what is in it."""
Entries = Mapping[str, int]
"""A folder's: the numbers of its files and folders, by name. Numbers are never used again, unlike inodes."""


@dataclass(kw_only=True)
class Disk:
    """What is visible and what is durable, after one operation; files and folders by number."""

    operation: str = ""
    contents: Mapping[int, bytes | None] = field(default_factory=dict)
    """Of every file that there has been; ``None`` for a folder."""
    visible: Mapping[int, Entries] = field(default_factory=dict)
    """The recorded folder itself is 0."""
    data: Mapping[int, bytes] = field(default_factory=dict)
    """Content of the files as last fsynced; likewise ``entries`` of the folders."""
    entries: Mapping[int, Entries] = field(default_factory=dict)


class Recorder:
    """Notes the state of a folder after each operation; zarr writes from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lock = folder, threading.RLock()
        self.moments = [Disk()]
        self._numbers: dict[int, int] = {}

    def note(self, operation: str, synced: Path | None = None) -> None:
        """Note the present state, in which a file or folder may have been fsynced."""
        last, numbers = self.moments[-1], dict[int, int]()
        contents, visible = dict(last.contents), dict[int, dict[str, int]]()
        for path in (self.folder, *sorted(self.folder.rglob("*"))):
            inode = path.stat().st_ino
            # An inode that was not there a moment ago is a new file.
            number = numbers.setdefault(inode, self._numbers.get(inode, len(contents)))
            contents[number] = None if path.is_dir() else path.read_bytes()
            if path != self.folder:
                visible.setdefault(numbers[path.parent.stat().st_ino], {})[path.name] = number
        self._numbers = numbers
        data, entries = last.data, last.entries
        if synced:
            number = numbers[synced.stat().st_ino]
            if (content := contents[number]) is None:
                entries = {**entries, number: visible.get(number, {})}
            else:
                data = {**data, number: content}
        disk = Disk(operation=operation, contents=contents, visible=visible, data=data, entries=entries)
        self.moments.append(disk)


@contextmanager
def recording(folder: Path) -> Iterator[Recorder]:
    """Record everything that this process does to the names below ``folder``, and every fsync."""
    recorder = Recorder(folder)
    for path in (folder, *folder.rglob("*")):
        recorder.note("begin", path)
    del recorder.moments[:-1]

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any, **options: Any) -> Any:
            with recorder.lock:
                result = function(*arguments, **options)
                recorder.note(f"{name} {' '.join(Path(str(argument)).name for argument in arguments)}")
                return result

        return act

    def fsync(descriptor: int, function: Callable[[int], None] = os.fsync) -> None:
        with recorder.lock:
            function(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_relative_to(folder):
                recorder.note(f"fsync {path.name}", path)

    with patch.multiple(os, fsync=fsync, **{name: noted(name, getattr(os, name)) for name in PATCHED}):
        yield recorder
    recorder.note("end")


def after_power_loss(disk: Disk, model: str, random: Random) -> Tree:
    """What may be left of a disk, see the module's docstring."""

    def entries_of(number: int) -> Entries:
        visible, synced = disk.visible.get(number, {}), disk.entries.get(number, {})
        if model in (ORDERED, TORN):
            return visible
        if model == STRICT:
            return synced
        chosen = {name: random.choice((synced, visible)).get(name) for name in sorted({*synced, *visible})}
        return {name: number for name, number in chosen.items() if number is not None}

    tree: Tree = {}

    def descend(path: Path, number: int) -> None:
        content = disk.contents[number]
        if content is not None:
            content = disk.data.get(number, content[: len(content) // 2 if model == TORN else 0])
        tree[path.as_posix()] = content
        if content is None:
            for name, inner in sorted(entries_of(number).items()):
                descend(path / name, inner)

    descend(Path(), 0)
    return tree


def lay_out(tree: Tree, folder: Path) -> None:
    """Put a tree on the disk."""
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).write_bytes(content)


def small_store_case(images: int) -> StoreCase:
    """Two views an image, in partitions of three."""
    return random_store_case(images, views_per_partition=3, most_points=20)


CASE = small_store_case(6)


def leave_an_interrupted_run(folder: Path) -> None:
    """One of its tables is damaged, and an old store is in the way."""
    scratch = folder / SCRATCH_FOLDER
    write_remaining(scratch, folder / OUTPUT, small_store_case(5))
    init(scratch, CASE.schema, CASE.table)
    for index in (0, 2):
        write_one(scratch, CASE, index)
    table = scratch / STORE / "views/extent/c/0/0"
    table.write_bytes(table.read_bytes()[:-1])


def moments_of_a_run(folder: Path) -> list[Disk]:
    """Write the store under observation."""
    with recording(folder) as recorder:
        write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, CASE)
    return recorder.moments


def require_true_records(scratch: Path) -> None:
    """A readable completion record has its shards; where there is no store, the next run removes it."""
    for path in (scratch / "partitions").glob("p*.json") if (scratch / STORE).exists() else ():
        try:
            json.loads(path.read_bytes())
        except ValueError:
            continue
        assert is_whole(scratch / STORE, path), path.name


@pytest.mark.slow
@pytest.mark.parametrize("continued", [False, True])
def test_a_run_after_a_power_cut_ends_with_the_same_bytes(continued: bool, tmp_path: Path) -> None:
    """Equal states are tried once; every one needs one run."""
    recorded, random, seen, outcomes = tmp_path / "recorded", Random(0), set[int](), Counter[str]()
    recorded.mkdir()
    if continued:
        leave_an_interrupted_run(recorded)
    old, moments = content_of(recorded / OUTPUT), moments_of_a_run(recorded)
    store = content_of(recorded / OUTPUT)
    chosen = [*moments[:: max(1, len(moments) // (MAX_MOMENTS * FACTOR))], moments[-1]]
    for moment, model in product(chosen, MODELS):
        tree = after_power_loss(moment, model, random)
        if (state := hash(tuple(sorted(tree.items())))) in seen:
            continue
        seen.add(state)
        scratch, output = (tmp_path / f"{len(seen)}" / name for name in (SCRATCH_FOLDER, OUTPUT))
        lay_out(tree, tmp_path / f"{len(seen)}")
        # Thousands of fsyncs take minutes, and the runs that follow a power cut suffer none themselves.
        with patch("os.fsync"):
            require_true_records(scratch)
            if (left := content_of(output)) not in (store, old):
                with pytest.raises(CacheError):
                    TargetStore.open(output)
            outcomes["new"] += left == store
            outcomes["resumed"] += bool(write_remaining(scratch, output, CASE))
        assert content_of(output) == store, f"{model}, after {moment.operation}"
    print(f"{len(moments)} moments, {len(seen)} states: {dict(outcomes)}")
    assert min(outcomes["new"], outcomes["resumed"]) > 0


def test_what_was_fsynced_alone_tells_of_every_finished_partition(tmp_path: Path) -> None:
    """Nothing of a partition is left to chance once its writer has gone on to the next."""
    moments = moments_of_a_run(tmp_path)
    renamed = [i for i, moment in enumerate(moments) if ".json." in moment.operation]
    finished = [i for i in renamed if moments[i].operation.startswith("replace p0")]
    assert len(finished) == CASE.schema.partitions
    for number, index in enumerate(finished, start=1):
        # The record's own rename becomes durable by the fsync of its folder, which comes next.
        tree = after_power_loss(moments[index + 1], STRICT, Random(0))
        records = [path for path in tree if "/partitions/p" in path]
        assert len(records) == number


def test_the_model_loses_what_is_not_fsynced(tmp_path: Path) -> None:
    """The oracle itself: data without fsync is lost, a name without its folder's fsync too."""
    (tmp_path / "folder").mkdir()
    with recording(tmp_path) as recorder:
        (tmp_path / "folder/lazy.partial").write_bytes(b"abcd")
        (tmp_path / "folder/lazy.partial").rename(tmp_path / "folder/lazy")
        write_atomically(tmp_path / "new/careful", b"abcd")
    left = {model: after_power_loss(recorder.moments[-1], model, Random(0)) for model in MODELS}
    assert left["ordered"]["folder/lazy"] == b""
    assert left["torn"]["folder/lazy"] == b"ab"
    assert "folder/lazy" not in left["strict"]
    assert all(tree["new/careful"] == b"abcd" for tree in left.values())
