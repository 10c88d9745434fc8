"""Damage a store in a thousand ways, one at a time: nobody may read a wrong number, `verify` finds it all.

    uv run python tests/stress/damage.py --flips 1000 --removals 100 --seed 0

Each time a copy of the store is changed in one place, by one flipped bit or by something larger (a file cut
short, removed, swapped with another of its size, partly zeroed, or lengthened), then read as a student reads
it: by a store that is opened afterwards, and by one that was open before. A read must end in a `CacheError`,
or give the values of the whole store, bit for bit. For comparison plain zarr reads the damaged array, too.
"""

import argparse
import logging
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tables
import zarr
from stores import make_plan, write_remaining
from workspace import Content, content_of, temporary_folder

from pipeline.core.errors import CacheError
from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.views.types import ViewKey

ROOT_METADATA = "zarr.json"
HARMLESS, AT_OPEN, AT_READ, WRONG, CRASHED = OUTCOMES = (
    "harmless",
    "found at open",
    "found at read",
    "silently wrong",
    "crashed",
)
"""The better ones first: a read of many views ends with the worst of theirs."""
NAMED, MISSED = "named", "missed"
ALLOWED = (HARMLESS, AT_OPEN, AT_READ, NAMED)
FLIP, CUT, REMOVED, SWAPPED, ZEROED, LENGTHENED = KINDS = (
    "flipped bit",
    "cut short",
    "removed",
    "swapped",
    "zeroed range",
    "lengthened",
)
MAX_PROBLEMS = 20

logger = logging.getLogger(__name__)

Values = tuple[tuple[str, tuple[int, ...], bytes], ...]
"""Every array and number of a stored view: type, shape and bytes."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One change of a store."""

    kind: str
    files: Mapping[str, bytes | None]
    what: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A copy of a store that is damaged and mended, again and again.

    Attributes:
        path: The copy.
        content: Of the whole store.
        values: Of all its views.
        partitions: Partition of each file; ``None`` for tables and metadata.
        rows: Views of each partition.
        statistics: As its attributes have them.
        plain: What zarr alone reads of its arrays and groups, by their path.
    """

    path: Path
    content: Content
    values: Mapping[ViewKey, Values]
    partitions: Mapping[str, int | None]
    rows: Callable[[int], slice]
    statistics: Mapping[str, Any]
    plain: Mapping[str, bytes]

    @classmethod
    def copy(cls, store: Path, path: Path) -> "Subject":
        """Copy a whole store and read it once."""
        shutil.copytree(store, path)
        assert not verify(path, lambda _done, _total: None), f"{store} is damaged already"
        opened = TargetStore.open(path)
        content = content_of(path)
        sharded = {f"{spec.path}/c/" for spec in sharded_specs(opened.schema)}
        return cls(
            path=path,
            content=content,
            values={key: values_of(opened, key) for key in opened.keys},
            partitions={name: _partition_of(name, sharded) for name in content},
            rows=opened.schema.partition_views,
            statistics=opened.statistics,
            plain={name: _zarr_values(path, name) for name in {_array_of(name) for name in content}},
        )

    def apply(self, damage: Damage) -> None:
        self._put(damage.files)

    def mend(self, damage: Damage) -> None:
        self._put({name: self.content[name] for name in damage.files})

    def touched(self, damage: Damage) -> list[ViewKey]:
        """Views whose values lie in the damaged files; all, for tables and metadata."""
        keys = list(self.values)
        wanted: set[ViewKey] = set()
        for name in damage.files:
            partition = self.partitions[name]
            wanted.update(keys if partition is None else keys[self.rows(partition)])
        return sorted(wanted)

    def _put(self, files: Mapping[str, bytes | None]) -> None:
        for name, content in files.items():
            if content is None:
                (self.path / name).unlink()
            else:
                (self.path / name).write_bytes(content)


def _partition_of(name: str, sharded: Iterable[str]) -> int | None:
    folder = next((folder for folder in sharded if name.startswith(folder)), None)
    return int(name.removeprefix(folder).split("/")[0]) if folder else None


def _array_of(name: str) -> str:
    """The array or group that a file belongs to; the root's is called like its file."""
    return name.partition("/c/")[0].removesuffix(f"/{ROOT_METADATA}")


def values_of(store: TargetStore, key: ViewKey) -> Values:
    """What a student gets of a view."""
    view = store.read(key)
    planned = view.view
    arrays: list[Any] = [planned.key, planned.boxes_xyxy, planned.labels, view.edge_codes, view.cls_codes]
    geometry = planned.geometry
    arrays += [geometry.original_hw, geometry.resized_hw, geometry.padded_hw, geometry.flip]
    points = planned.points
    arrays += [points.level, points.position, points.main_gt, points.valuable_weight]
    arrays += [np.nan if step is None else step for step in (view.edge_steps, view.cls_step)]
    if store.schema.dense:
        dense = store.read_dense(key)
        arrays += [dense.classes, dense.distances, dense.scores]
    converted = [np.asarray(array) for array in arrays]
    return tuple((array.dtype.str, array.shape, array.tobytes()) for array in converted)


def draw_flips(content: Content, count: int, random: Random) -> Iterator[Damage]:
    """Half of the flips visit all files in turn, half fall on any bit of the store alike."""
    names = [name for name in sorted(content) if content[name]]
    in_turn = [names[number % len(names)] for number in range(count // 2)]
    sizes = [len(content[name]) for name in names]
    for name in in_turn + random.choices(names, weights=sizes, k=count - count // 2):
        bit = random.randrange(8 * len(content[name]))
        yield flip(content, name, bit)


def flip(content: Content, name: str, bit: int) -> Damage:
    changed = bytearray(content[name])
    changed[bit // 8] ^= 1 << (bit % 8)
    return Damage(kind=FLIP, files={name: bytes(changed)}, what=f"{name}, bit {bit}")


def draw_larger(content: Content, count: int, random: Random) -> Iterator[Damage]:
    """Damage of the other kinds in turn; each kind begins with the root's metadata, if it can."""
    draw = {CUT: _cut, REMOVED: _remove, SWAPPED: _swap, ZEROED: _zero, LENGTHENED: _lengthen}
    for number in range(count):
        kind = KINDS[1:][number % len(draw)]
        names = [ROOT_METADATA] if number < len(draw) else sorted(content)
        if kind == SWAPPED:
            names = swappable(content)
        if names:
            yield draw[kind](content, random.choice(names), random)


def swappable(content: Content) -> list[str]:
    """Files of which there is another of the same size with other content."""
    return [name for name in sorted(content) if _twins(content, name)]


def _twins(content: Content, name: str) -> list[str]:
    mine = content[name]
    return [other for other, theirs in content.items() if len(theirs) == len(mine) and theirs != mine]


def _cut(content: Content, name: str, random: Random) -> Damage:
    length = random.randrange(len(content[name]))
    return Damage(kind=CUT, files={name: content[name][:length]}, what=f"{name} cut to {length} bytes")


def _remove(_content: Content, name: str, _random: Random) -> Damage:
    return Damage(kind=REMOVED, files={name: None}, what=name)


def _swap(content: Content, name: str, random: Random) -> Damage:
    other = random.choice(sorted(_twins(content, name)))
    files = {name: content[other], other: content[name]}
    return Damage(kind=SWAPPED, files=files, what=f"{name} and {other}")


def _zero(content: Content, name: str, random: Random) -> Damage:
    old = content[name]
    first = random.choice([offset for offset, byte in enumerate(old) if byte])
    end = min(len(old), first + random.randint(1, 512))
    changed = old[:first] + bytes(end - first) + old[end:]
    return Damage(kind=ZEROED, files={name: changed}, what=f"{name}, bytes {first} to {end}")


def _lengthen(content: Content, name: str, random: Random) -> Damage:
    more = random.choice([bytes(16), random.randbytes(16), content[name]])
    return Damage(kind=LENGTHENED, files={name: content[name] + more}, what=f"{name} by {len(more)} bytes")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of looking at a damaged store."""

    name: str
    detail: str = ""


@dataclass(kw_only=True)
class Tally:
    """Outcomes by kind of damage, for each way to look at the store.

    Attributes:
        fresh: A store that is opened afterwards, and read.
        opened: A store that was open before.
        verified: `verify`.
        plain_zarr: The damaged array read with zarr alone; for comparison.
        damages: All, by kind.
        problems: What must not be.
    """

    fresh: Counter[tuple[str, str]] = field(default_factory=Counter)
    opened: Counter[tuple[str, str]] = field(default_factory=Counter)
    verified: Counter[tuple[str, str]] = field(default_factory=Counter)
    plain_zarr: Counter[tuple[str, str]] = field(default_factory=Counter)
    damages: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, damage: Damage, fresh: Outcome, opened: Outcome, found: Outcome, plain: Outcome) -> None:
        kind = damage.kind
        self.damages[kind] += 1
        ways = {"opened afterwards": fresh, "opened before": opened, "verify": found}
        counters = (self.fresh, self.opened, self.verified, self.plain_zarr)
        for counter, outcome in zip(counters, (*ways.values(), plain), strict=True):
            counter[kind, outcome.name] += 1
        for way, outcome in ways.items():
            if outcome.name not in ALLOWED:
                self.problems.append(f"{kind}: {damage.what}: {way}: {outcome.name} {outcome.detail}")


def try_out(subject: Subject, damages: Iterable[Damage]) -> Tally:
    """Damage, look, mend; one after another."""
    tally = Tally()
    for number, damage in enumerate(damages, start=1):
        opened = TargetStore.open(subject.path)
        touched = subject.touched(damage)
        if number % 2:
            # Every other time the open store has read these views before, and kept what it keeps of them.
            read(subject, opened, touched)
        subject.apply(damage)
        try:
            tally.add(
                damage,
                open_and_read(subject, touched),
                read(subject, opened, touched),
                look_for(subject, damage),
                read_with_zarr(subject, damage),
            )
        finally:
            subject.mend(damage)
        if number % 100 == 0:
            logger.info("%d done, %d wrong", number, len(tally.problems))
    return tally


def open_and_read(subject: Subject, keys: Sequence[ViewKey]) -> Outcome:
    """What a student does that begins now."""
    try:
        store = TargetStore.open(subject.path)
    except CacheError as error:
        return Outcome(name=AT_OPEN, detail=str(error))
    except Exception as error:
        return Outcome(name=CRASHED, detail=repr(error))
    return read(subject, store, keys)


def read(subject: Subject, store: TargetStore, keys: Sequence[ViewKey]) -> Outcome:
    """Read views; the worst that comes of it."""
    outcomes = [_read_view(subject, store, key) for key in keys]
    if store.statistics != subject.statistics or store.keys != tuple(subject.values):
        outcomes.append(Outcome(name=WRONG, detail="statistics or keys"))
    return max(outcomes, key=lambda outcome: OUTCOMES.index(outcome.name), default=Outcome(name=HARMLESS))


def _read_view(subject: Subject, store: TargetStore, key: ViewKey) -> Outcome:
    try:
        values = values_of(store, key)
    except CacheError as error:
        return Outcome(name=AT_READ, detail=str(error))
    except Exception as error:
        return Outcome(name=CRASHED, detail=f"{key}: {error!r}")
    return Outcome(name=HARMLESS if values == subject.values[key] else WRONG, detail=str(key))


def look_for(subject: Subject, damage: Damage) -> Outcome:
    """Whether `verify` names every damaged file, and its partition."""
    try:
        problems = verify(subject.path, lambda _done, _total: None)
    except CacheError as error:
        # The root's metadata hold the records to compare with: without them verify can name only these.
        names_it = str(subject.path) in str(error) and ROOT_METADATA in str(error)
        whole = set(damage.files) == {ROOT_METADATA} and names_it
        return Outcome(name=NAMED if whole else MISSED, detail=str(error))
    except Exception as error:
        return Outcome(name=CRASHED, detail=repr(error))
    found = {(problem.file, problem.partition) for problem in problems}
    expected = {(name, subject.partitions[name]) for name in damage.files}
    return Outcome(name=NAMED if found == expected else MISSED, detail=f"found {sorted(found, key=str)}")


def read_with_zarr(subject: Subject, damage: Damage) -> Outcome:
    """Read the damaged arrays whole with zarr and nothing else."""
    nodes = {_array_of(name) for name in damage.files}
    try:
        same = all(_zarr_values(subject.path, node) == subject.plain[node] for node in nodes)
    except Exception as error:
        return Outcome(name=AT_READ, detail=repr(error))
    return Outcome(name=HARMLESS if same else WRONG)


def _zarr_values(path: Path, name: str) -> bytes:
    """Values of an array, or the members and attributes of a group."""
    node = zarr.open_group(path, mode="r")
    found: Any = node if name == ROOT_METADATA else node[name]
    if isinstance(found, zarr.Array):
        return np.asarray(found[...]).tobytes() + repr(found.attrs.asdict()).encode()
    return repr((sorted(found.keys()), found.attrs.asdict())).encode()


def tally_tables(tally: Tally) -> list[str]:
    """The figures of an experiment."""

    def table(title: str, counter: Counter[tuple[str, str]], names: Sequence[str]) -> str:
        kinds = [kind for kind in KINDS if tally.damages[kind]]
        rows = [[kind, *(counter[kind, name] for name in names), tally.damages[kind]] for kind in kinds]
        sums = [sum(counter[kind, name] for kind in kinds) for name in names]
        return tables.render([title, *names, "all"], [*rows, ["all", *sums, tally.damages.total()]])

    return [
        table("a store opened afterwards", tally.fresh, OUTCOMES),
        table("a store open before", tally.opened, OUTCOMES),
        table("verify", tally.verified, (NAMED, MISSED, CRASHED)),
        table("plain zarr, for comparison", tally.plain_zarr, (AT_READ, HARMLESS, WRONG)),
    ]


def make_store(folder: Path) -> Path:
    """A store of 240 views in 40 partitions, some without points."""
    plan = make_plan(120, views_per_partition=6, most_points=60)
    write_remaining(folder / "scratch", folder / "targets.zarr", plan)
    return folder / "targets.zarr"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = tables.parser(__doc__)
    add = parser.add_argument
    add("--flips", type=int, default=1000, help="flipped bits; default: %(default)s")
    add("--removals", type=int, default=100, help="damages of the other kinds; default: %(default)s")
    add("--seed", type=int, default=0, help="of all that is drawn; default: %(default)s")
    add("--store", type=Path, help="damage a copy of this store; default: a small one of random content")
    return parser.parse_args()


def main() -> int:
    """Run the experiment."""
    options = arguments()
    tables.start_logging()
    random = Random(options.seed)
    with temporary_folder(None) as folder:
        subject = Subject.copy(options.store or make_store(folder), folder / "copy.zarr")
        size, files = sum(map(len, subject.content.values())), len(subject.content)
        logger.info("%d views in %d files of %d bytes", len(subject.values), files, size)
        flips = draw_flips(subject.content, options.flips, random)
        larger = draw_larger(subject.content, options.removals, random)
        tally = try_out(subject, chain(flips, larger))
    title = f"damage.py --flips {options.flips} --removals {options.removals} --seed {options.seed}"
    title += f": {len(subject.values)} views in {files} files of {size} bytes"
    more = len(tally.problems) - MAX_PROBLEMS
    problems = tally.problems[:MAX_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
    return tables.report(title, tally_tables(tally), problems)


if __name__ == "__main__":
    sys.exit(main())
