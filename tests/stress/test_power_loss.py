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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from store_cases import StoreCase, content_of, random_store_case, write_one, write_remaining
from workspace import Content, is_whole

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


@dataclass(frozen=True, kw_only=True)
class Node:
    """A file or a folder, under whatever name.

    Attributes:
        number: Never used again, unlike an inode's.
        content: Of a file; ``None`` for a folder.
    """

    number: int
    content: bytes | None


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The disk right after one operation.

    Attributes:
        operation: What was done, for people.
        names: Every node that is visible, by its path; the recorded folder itself is ``.``.
        data: Content of the files as last fsynced, by number.
        entries: Entries of the folders as last fsynced, by number: the numbers of the nodes by name.
        nodes: Every node that there has been, by number.
    """

    operation: str
    names: Mapping[str, Node]
    data: Mapping[int, bytes]
    entries: Mapping[int, Mapping[str, int]]
    nodes: Mapping[int, Node]


@dataclass(kw_only=True)
class Recorder:
    """Notes the state of a folder after each operation.

    Attributes:
        folder: What is recorded.
        moments: What was noted.
        lock: Held during an operation: zarr writes from several threads.
    """

    folder: Path
    moments: list[Moment] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    _fresh: Iterator[int] = field(default_factory=count)
    _numbers: dict[int, int] = field(default_factory=dict)
    _nodes: dict[int, Node] = field(default_factory=dict)
    _data: dict[int, bytes] = field(default_factory=dict)
    _entries: dict[int, Mapping[str, int]] = field(default_factory=dict)

    def note(self, operation: str) -> None:
        """Note the present state."""
        names = self._look()
        self.moments.append(
            Moment(
                operation=operation,
                names=names,
                data=dict(self._data),
                entries=dict(self._entries),
                nodes=dict(self._nodes),
            )
        )

    def synced(self, path: Path) -> None:
        """A file or folder has been fsynced."""
        names = self._look()
        node = names[path.relative_to(self.folder).as_posix()]
        if node.content is None:
            inside = {child: names[child.relative_to(self.folder).as_posix()] for child in path.iterdir()}
            self._entries[node.number] = {child.name: found.number for child, found in inside.items()}
        else:
            self._data[node.number] = node.content

    def _look(self) -> dict[str, Node]:
        """All that is visible; an inode that was not there a moment ago is a new node."""
        names, numbers = {}, {}
        for path in (self.folder, *sorted(self.folder.rglob("*"))):
            inode = path.stat().st_ino
            if inode not in numbers:
                numbers[inode] = self._numbers[inode] if inode in self._numbers else next(self._fresh)
            content = None if path.is_dir() else path.read_bytes()
            node = Node(number=numbers[inode], content=content)
            names[path.relative_to(self.folder).as_posix()] = self._nodes[node.number] = node
        self._numbers = numbers
        return names


@contextmanager
def recording(folder: Path) -> Iterator[Recorder]:
    """Record everything that this process does to the names below ``folder``, and every fsync."""
    recorder = Recorder(folder=folder)
    for path in (folder, *folder.rglob("*")):
        recorder.synced(path)
    recorder.note("begin")
    noted: dict[str, Any] = {name: _noted(recorder, name, getattr(os, name)) for name in PATCHED}
    noted["fsync"] = _noted_sync(recorder, os.fsync)
    with patch.multiple(os, **noted):
        yield recorder
    recorder.note("end")


def _noted(recorder: Recorder, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **options: Any) -> Any:
        with recorder.lock:
            result = function(*arguments, **options)
            recorder.note(f"{name} {' '.join(Path(str(argument)).name for argument in arguments)}")
            return result

    return noted


def _noted_sync(recorder: Recorder, function: Callable[[int], None]) -> Callable[[int], None]:
    def noted(descriptor: int) -> None:
        with recorder.lock:
            function(descriptor)
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            if path.is_relative_to(recorder.folder):
                recorder.synced(path)
                recorder.note(f"fsync {path.name}")

    return noted


def after_power_loss(moment: Moment, model: str, random: Random) -> Tree:
    """What may be left of a moment, see the module's docstring.

    Raises:
        ValueError: Of an unknown model.
    """
    match model:
        case "ordered":
            return {path: _kept(moment, node, 0) for path, node in moment.names.items()}
        case "torn":
            return {path: _kept(moment, node, 0.5) for path, node in moment.names.items()}
        case "strict":
            return _walk(moment, lambda synced, _: synced)
        case "scattered":
            return _walk(moment, lambda synced, visible: _scatter(synced, visible, random))
        case _:
            raise ValueError(f"expected one of {MODELS}, but got {model!r}")


def _kept(moment: Moment, node: Node, share: float) -> bytes | None:
    """Content of a file: as fsynced, or else a share of it."""
    if node.content is None:
        return None
    return moment.data.get(node.number, node.content[: int(share * len(node.content))])


Entries = Mapping[str, int]


def _walk(moment: Moment, choose: Callable[[Entries, Entries], Entries]) -> Tree:
    """The tree, if each folder has the entries that are chosen of the fsynced and the visible ones."""
    visible: dict[int, dict[str, int]] = {}
    for path, node in moment.names.items():
        if path != ".":
            parent = moment.names[Path(path).parent.as_posix()]
            visible.setdefault(parent.number, {})[Path(path).name] = node.number
    tree: Tree = {}

    def descend(path: Path, number: int) -> None:
        tree[path.as_posix()] = _kept(moment, moment.nodes[number], 0)
        if moment.nodes[number].content is None:
            entries = choose(moment.entries.get(number, {}), visible.get(number, {}))
            for name in sorted(entries):
                descend(path / name, entries[name])

    descend(Path(), moment.names["."].number)
    return tree


def _scatter(synced: Entries, visible: Entries, random: Random) -> Entries:
    chosen = {name: random.choice((synced, visible)).get(name) for name in sorted({*synced, *visible})}
    return {name: number for name, number in chosen.items() if number is not None}


def lay_out(tree: Tree, folder: Path) -> None:
    """Put a tree on the disk."""
    for path, content in tree.items():
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).write_bytes(content)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run under observation."""

    moments: Sequence[Moment]
    store_case: StoreCase
    store: Content
    old: Content | None = None


def record_first_run(folder: Path) -> Recorded:
    """Write a store where there is nothing."""
    store_case = small_store_case(6)
    folder.mkdir()
    with recording(folder) as recorder:
        write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, store_case)
    return Recorded(moments=recorder.moments, store_case=store_case, store=content_of(folder / OUTPUT))


def record_second_run(folder: Path) -> Recorded:
    """Continue an earlier run; one of its tables is damaged, and an old store is in the way."""
    store_case = small_store_case(6)
    write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, small_store_case(5))
    old = content_of(folder / OUTPUT)
    init(folder / SCRATCH_FOLDER, store_case.schema, store_case.table)
    for index in (0, 2):
        write_one(folder / SCRATCH_FOLDER, store_case, index)
    table = folder / SCRATCH_FOLDER / STORE / "views/extent/c/0/0"
    table.write_bytes(table.read_bytes()[:-1])
    with recording(folder) as recorder:
        write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, store_case)
    return Recorded(
        moments=recorder.moments, store_case=store_case, store=content_of(folder / OUTPUT), old=old
    )


def small_store_case(images: int) -> StoreCase:
    """Two views an image, in partitions of three."""
    return random_store_case(images, views_per_partition=3, most_points=20, chunk_rows=8)


def require_true_records(folder: Path) -> None:
    """A readable completion record has its shards; where there is no store, the next run removes it."""
    scratch = folder / SCRATCH_FOLDER
    for path in (scratch / "partitions").glob("p*.json") if (scratch / STORE).exists() else ():
        try:
            json.loads(path.read_bytes())
        except ValueError:
            continue
        assert is_whole(scratch / STORE, path), path.name


def is_new(output: Path, recorded: Recorded) -> bool:
    """Whether an output is the new store; if not, it is the old one, or nobody can open it."""
    content = content_of(output)
    if content not in (recorded.store, recorded.old):
        with pytest.raises(CacheError):
            TargetStore.open(output)
    return content == recorded.store


@pytest.mark.slow
@pytest.mark.parametrize("record", [record_first_run, record_second_run])
def test_a_run_after_a_power_cut_ends_with_the_same_bytes(
    record: Callable[[Path], Recorded], tmp_path: Path, factor: int
) -> None:
    """Equal states are tried once; every one needs one run."""
    recorded, random, seen = record(tmp_path / "recorded"), Random(0), set[int]()
    outcomes: Counter[str] = Counter()
    moments = [
        *recorded.moments[:: max(1, len(recorded.moments) // (MAX_MOMENTS * factor))],
        recorded.moments[-1],
    ]
    for moment, model in ((moment, model) for moment in moments for model in MODELS):
        tree = after_power_loss(moment, model, random)
        if (state := hash(tuple(sorted(tree.items())))) in seen:
            continue
        seen.add(state)
        folder = tmp_path / f"{len(seen)}"
        lay_out(tree, folder)
        # Thousands of fsyncs take minutes, and the runs that follow a power cut suffer none themselves.
        with patch("os.fsync"):
            require_true_records(folder)
            outcomes["new"] += (folder / OUTPUT).exists() and is_new(folder / OUTPUT, recorded)
            outcomes["resumed"] += bool(
                write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, recorded.store_case)
            )
        assert content_of(folder / OUTPUT) == recorded.store, f"{model}, after {moment.operation}"
    print(f"{len(recorded.moments)} moments, {len(seen)} states: {dict(outcomes)}")
    assert min(outcomes["new"], outcomes["resumed"]) > 0


def test_what_was_fsynced_alone_tells_of_every_finished_partition(tmp_path: Path) -> None:
    """Nothing of a partition is left to chance once its writer has gone on to the next."""
    recorded = record_first_run(tmp_path / "recorded")
    renamed = [i for i, moment in enumerate(recorded.moments) if ".json." in moment.operation]
    finished = [i for i in renamed if recorded.moments[i].operation.startswith("replace p0")]
    assert len(finished) == recorded.store_case.schema.partitions
    for number, index in enumerate(finished, start=1):
        # The record's own rename becomes durable by the fsync of its folder, which comes next.
        tree = after_power_loss(recorded.moments[index + 1], STRICT, Random(0))
        records = [path for path in tree if "/partitions/p" in path]
        assert len(records) == number


def test_the_model_loses_what_is_not_fsynced(tmp_path: Path) -> None:
    """The oracle itself: data without fsync is lost, a name without its folder's fsync too."""
    (tmp_path / "folder").mkdir()
    with recording(tmp_path) as recorder:
        (tmp_path / "folder/lazy.partial").write_bytes(b"abcd")
        (tmp_path / "folder/lazy.partial").rename(tmp_path / "folder/lazy")
        write_atomically(tmp_path / "new/careful", b"abcd")
    last = recorder.moments[-1]
    left = {model: after_power_loss(last, model, Random(0)) for model in MODELS}
    assert left["ordered"]["folder/lazy"] == b""
    assert left["torn"]["folder/lazy"] == b"ab"
    assert "folder/lazy" not in left["strict"]
    assert all(tree["new/careful"] == b"abcd" for tree in left.values())
