"""Cut the power after every single operation on the disk, and run again from what is left.

    uv run python tests/stress/power_loss.py

A small store is written once while every fsync, rename, link, removal and new folder is recorded, together
with all that is visible at that moment and all that has been forced to the disk. From each moment the disk
after a power cut is made up, in four ways:

    ordered    names are as they were; a file that was not fsynced is empty
    torn       the same, but such a file is cut in half
    strict     only what was fsynced is there: data by the file's fsync, names by that of their folder
    scattered  of each name that was changed since its folder's fsync, the old or the new state by chance

In each of them a completion record must have all of its shards, an output must be whole or refused, and a run
from there must end with the very bytes of the undisturbed one. The same again for a run that continues an
earlier one, one of whose tables has been damaged meanwhile, and that replaces an old store.
"""

import argparse
import json
import logging
import os
import shutil
import sys
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

import tables
from disk_state import RECORDS, STORE, is_whole
from stores import Plan, make_plan, write_one, write_remaining
from workspace import Content, content_of, differences, temporary_folder

from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.writer import init

SCRATCH_FOLDER, OUTPUT = Path("scratch/0123456789abcdef"), Path("cache/targets.zarr")
PATCHED = ("rename", "replace", "link", "unlink", "remove", "mkdir", "rmdir")
ORDERED, TORN, STRICT, SCATTERED = MODELS = ("ordered", "torn", "strict", "scattered")
NEW, OLD, REFUSED, ACCEPTED = OUTPUTS = ("the new store", "the old store", "refused", "damaged, but opened")
MAX_RUNS = 3
"""A run that finds a damaged partition says so and ends; the next one writes it again."""

logger = logging.getLogger(__name__)

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


def false_records(folder: Path) -> list[str]:
    """Completion records that are readable but do not have their shards: they vouch for what is lost.

    Where there is no store, the next run removes them.
    """
    scratch = folder / SCRATCH_FOLDER
    if not (scratch / STORE).exists():
        return []
    return [
        path.name
        for path in sorted((scratch / RECORDS).glob("p*.json"))
        if _is_readable(path) and not is_whole(scratch / STORE, path)
    ]


def _is_readable(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


@dataclass(kw_only=True)
class Tally:
    """What was counted."""

    states: Counter[str] = field(default_factory=Counter)
    runs: Counter[int] = field(default_factory=Counter)
    resumed: int = 0
    outputs: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A run under observation."""

    moments: Sequence[Moment]
    plan: Plan
    store: Content
    old: Content | None = None


def record_first_run(folder: Path) -> Recorded:
    """Write a store where there is nothing."""
    plan, _ = small_plans()
    folder.mkdir()
    with recording(folder) as recorder:
        write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, plan)
    return Recorded(moments=recorder.moments, plan=plan, store=content_of(folder / OUTPUT))


def record_second_run(folder: Path) -> Recorded:
    """Continue an earlier run; one of its tables is damaged, and an old store is in the way."""
    plan, old_plan = small_plans()
    write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, old_plan)
    old = content_of(folder / OUTPUT)
    init(folder / SCRATCH_FOLDER, plan.schema, plan.table)
    for index in (0, 2):
        write_one(folder / SCRATCH_FOLDER, plan, index)
    table = folder / SCRATCH_FOLDER / STORE / "views/extent/c/0/0"
    table.write_bytes(table.read_bytes()[:-1])
    with recording(folder) as recorder:
        write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, plan)
    return Recorded(moments=recorder.moments, plan=plan, store=content_of(folder / OUTPUT), old=old)


def replay(recorded: Recorded, folder: Path, models: Sequence[str], random: Random) -> Tally:
    """Cut the power at each moment, in each way, and run again; equal states are tried once."""
    tally = Tally()
    for model in models:
        seen: set[int] = set()
        for moment in recorded.moments:
            tree = after_power_loss(moment, model, random)
            state = hash(tuple(sorted(tree.items())))
            if state not in seen:
                seen.add(state)
                place = folder / f"{model}_{len(seen)}"
                lay_out(tree, place)
                with without_fsync():
                    _look_and_continue(place, recorded, f"{model}, after {moment.operation}", tally)
                shutil.rmtree(place)
        tally.states[model] = len(seen)
        logger.info("%s: %d states, %d wrong", model, len(seen), len(tally.problems))
    return tally


def _look_and_continue(folder: Path, recorded: Recorded, what: str, tally: Tally) -> None:
    """Look at a state, run from there, and look at the outcome."""
    false = false_records(folder)
    if false:
        tally.problems.append(f"{what}: records without their shards: {false}")
    if (folder / OUTPUT).exists():
        kind = _output_kind(folder / OUTPUT, recorded)
        tally.outputs[kind] += 1
        if kind == ACCEPTED:
            tally.problems.append(f"{what}: a damaged output can be opened")
    for run in range(1, MAX_RUNS + 1):
        try:
            finished = write_remaining(folder / SCRATCH_FOLDER, folder / OUTPUT, recorded.plan)
        except CacheError as error:
            logger.info("%s: run %d: %s", what, run, error)
            continue
        except Exception as error:
            tally.problems.append(f"{what}: run {run} crashed: {error!r}")
            return
        tally.runs[run] += 1
        tally.resumed += bool(finished)
        wrong = differences(content_of(folder / OUTPUT), recorded.store)
        if wrong:
            tally.problems.append(f"{what}: the next run's store differs: {wrong}")
        return
    tally.problems.append(f"{what}: not complete after {MAX_RUNS} runs")


@contextmanager
def without_fsync() -> Iterator[None]:
    """Thousands of them take minutes, and the runs that follow a power cut suffer none themselves."""
    with patch("os.fsync"):
        yield


def _output_kind(output: Path, recorded: Recorded) -> str:
    content = content_of(output)
    if content == recorded.store:
        return NEW
    if content == recorded.old:
        return OLD
    try:
        TargetStore.open(output)
    except CacheError:
        return REFUSED
    return ACCEPTED


def small_plans() -> tuple[Plan, Plan]:
    """Twelve views in four partitions, and an older plan of ten views."""
    new, old = (make_plan(images, views_per_partition=3, most_points=20, chunk_rows=8) for images in (6, 5))
    return new, old


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = tables.parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of what is scattered; default: %(default)s")
    return parser.parse_args()


def main() -> int:
    """Run the experiment."""
    options = arguments()
    tables.start_logging()
    tallies: dict[str, Tally] = {}
    operations: dict[str, int] = {}
    with temporary_folder(None) as folder:
        for name, record in (("a first run", record_first_run), ("a run that continues", record_second_run)):
            recorded = record(folder / name)
            operations[name] = len(recorded.moments)
            logger.info("%s: %d operations", name, operations[name])
            tallies[name] = replay(recorded, folder / "replayed", MODELS, Random(options.seed))
    problems = [f"{name}: {problem}" for name, tally in tallies.items() for problem in tally.problems]
    return tables.report(f"power_loss.py --seed {options.seed}", tally_tables(tallies, operations), problems)


def tally_tables(tallies: Mapping[str, Tally], operations: Mapping[str, int]) -> list[str]:
    """The figures of an experiment."""
    runs = range(1, MAX_RUNS + 1)
    items = tallies.items()
    return [
        tables.render(
            ["recorded", "operations", *(f"{model}, states" for model in MODELS)],
            [[name, operations[name], *(tally.states[model] for model in MODELS)] for name, tally in items],
        ),
        tables.render(
            ["states, by the runs until the store was complete", *runs, "finished partitions found"],
            [[name, *(tally.runs[run] for run in runs), tally.resumed] for name, tally in items],
        ),
        tables.render(
            ["states with an output, by what it was", *OUTPUTS],
            [[name, *(tally.outputs[kind] for kind in OUTPUTS)] for name, tally in items],
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
