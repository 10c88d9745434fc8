"""Damage of every kind is found by a reader or does not matter to it, and `verify` names the file.

Each time a copy of a store is changed in one place, by one flipped bit or by something larger, then read as a
student reads it: by a store that is opened afterwards, and by one that was open before. A read must end in a
`CacheError`, or give the values of the whole store, bit for bit. ``LDP_STRESS=10`` does ten times as much;
``-s`` shows what came of it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from store_cases import Content, Values, content_of, random_store_case, values_of, write_remaining
from workspace import FACTOR

from pipeline.core.errors import CacheError
from pipeline.store.format.attributes import ROOT_METADATA
from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.views.types import ViewKey

HARMLESS, AT_OPEN, AT_READ = ("harmless", "found at open", "found at read")

Files = Mapping[str, bytes | None]
"""New content of some files, ``None`` for one that is removed."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A store that is damaged and mended, again and again, and what it was before."""

    path: Path
    whole: TargetStore
    content: Content
    values: Mapping[ViewKey, Values]
    partitions: Mapping[str, int | None]
    """Of each file; ``None`` for tables and metadata."""

    @contextmanager
    def damaged(self, files: Files) -> Iterator[None]:
        """The copy is whole again afterwards."""
        for name, content in files.items():
            (self.path / name).unlink() if content is None else (self.path / name).write_bytes(content)
        try:
            yield
        finally:
            for name in files:
                (self.path / name).write_bytes(self.content[name])

    def touched(self, files: Files) -> list[ViewKey]:
        """Views whose values lie in the damaged files; all, for tables and metadata."""
        keys, rows = list(self.values), self.whole.schema.partition_views
        hit = [self.partitions[name] for name in files]
        return sorted({key for index in hit for key in (keys if index is None else keys[rows(index)])})


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A store of random content, some views without points."""
    folder = tmp_path_factory.mktemp("damage")
    store_case = random_store_case(min(10 * FACTOR, 120), views_per_partition=3, most_points=30)
    path = folder / "targets.zarr"
    write_remaining(folder / "scratch", path, store_case)
    assert not verify(path)
    whole, content = TargetStore.open(path), content_of(path)
    sharded = tuple(f"{spec.path}/c/" for spec in sharded_specs(whole.schema))
    return Subject(
        path=path,
        whole=whole,
        content=content,
        values={key: everything(whole, key) for key in whole.keys},
        partitions={name: int(name.split("/")[3]) if name.startswith(sharded) else None for name in content},
    )


def everything(store: TargetStore, key: ViewKey) -> Values:
    """All that a student gets of a view."""
    return values_of(store.read(key)) + values_of(store.read_dense(key))


def flip(content: Content, name: str, bit: int) -> Files:
    changed = bytearray(content[name])
    changed[bit // 8] ^= 1 << (bit % 8)
    return {name: bytes(changed)}


def flips(content: Content, count: int, random: Random) -> Iterator[Files]:
    """Half of the flips visit all files in turn, half fall on any bit of the store alike."""
    names = [name for name in sorted(content) if content[name]]
    in_turn = [names[number % len(names)] for number in range(count // 2)]
    sizes = [len(content[name]) for name in names]
    for name in in_turn + random.choices(names, weights=sizes, k=count - count // 2):
        yield flip(content, name, random.randrange(8 * len(content[name])))


def zero(content: Content, name: str, random: Random) -> Files:
    old = content[name]
    first = random.choice([offset for offset, byte in enumerate(old) if byte])
    end = min(len(old), first + random.randint(1, 512))
    return {name: old[:first] + bytes(end - first) + old[end:]}


def twins(content: Content, name: str) -> list[str]:
    """Other files of the same size with other content."""
    old = content[name]
    return [other for other in sorted(content) if len(content[other]) == len(old) and content[other] != old]


def swap(content: Content, name: str, random: Random) -> Files:
    other = random.choice(twins(content, name))
    return {name: content[other], other: content[name]}


DAMAGES: dict[str, Callable[[Content, str, Random], Files]] = {
    "cut": lambda content, name, random: {name: content[name][: random.randrange(len(content[name]))]},
    "removed": lambda _content, name, _random: {name: None},
    "zeroed": zero,
    "lengthened": lambda content, name, random: {
        name: content[name] + random.choice([bytes(16), random.randbytes(16), content[name]])
    },
    "swapped": swap,
}


def check(subject: Subject, damages: Iterable[Files]) -> Counter[str]:
    """Damage, look, mend; one after another. Returns how the reads ended."""
    outcomes: Counter[str] = Counter()
    for number, files in enumerate(damages):
        opened, touched = TargetStore.open(subject.path), subject.touched(files)
        if number % 2:
            # Every other time the open store has read these views before, and kept what it keeps of them.
            read(subject, opened, touched)
        with subject.damaged(files):
            afterwards, before = read(subject, None, touched), read(subject, opened, touched)
            assert is_named(subject, files), files.keys()
        outcomes.update([f"opened afterwards: {afterwards}", f"opened before: {before}"])
    print(dict(outcomes))
    return outcomes


def read(subject: Subject, store: TargetStore | None, keys: Iterable[ViewKey]) -> str:
    """Read views, of a store that is opened now if none is given: damage is found, or changes no value."""
    try:
        store = store or TargetStore.open(subject.path)
    except CacheError:
        return AT_OPEN
    assert (store.statistics, store.keys) == (subject.whole.statistics, subject.whole.keys)
    outcome = HARMLESS
    for key in keys:
        try:
            values = everything(store, key)
        except CacheError:
            outcome = AT_READ
        else:
            assert values == subject.values[key], f"{key} is silently wrong"
    return outcome


def is_named(subject: Subject, files: Files) -> bool:
    """Whether `verify` names every damaged file, and its partition."""
    try:
        problems = verify(subject.path)
    except CacheError as error:
        # The root's metadata hold the records to compare with: without them verify can name only these.
        named = str(subject.path) in str(error) and ROOT_METADATA in str(error)
        return named and set(files) == {ROOT_METADATA}
    found = {(problem.file, problem.partition) for problem in problems}
    return found == {(name, subject.partitions[name]) for name in files}


@pytest.mark.slow
def test_flipped_bits_all_over_the_store(subject: Subject) -> None:
    count = 2 * FACTOR * len(subject.content)
    outcomes = check(subject, flips(subject.content, count, Random(0)))
    assert outcomes[f"opened afterwards: {AT_OPEN}"] > 0
    assert outcomes[f"opened afterwards: {AT_READ}"] > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_files_that_are_cut_removed_zeroed_lengthened_or_swapped(subject: Subject, damage: str) -> None:
    """The root's metadata first, unless there is no other file of its size."""
    random, names, root = Random(0), sorted(subject.content), [ROOT_METADATA]
    if damage == "swapped":
        names, root = [name for name in names if twins(subject.content, name)], []
    drawn = [*root, *random.choices(names, k=8 * FACTOR)]
    check(subject, (DAMAGES[damage](subject.content, name, random) for name in drawn))


def test_every_byte_around_the_attributes_is_under_the_seal(subject: Subject) -> None:
    """What frames the attributes in the root's metadata is no attribute itself."""
    content = subject.content[ROOT_METADATA]
    bits = [*range(8 * content.index(b'"title"')), *range(8 * (len(content) - 8), 8 * len(content))]
    for bit in bits[:: 5 if FACTOR == 1 else 1]:
        damage = flip(subject.content, ROOT_METADATA, bit)
        with subject.damaged(damage):
            assert is_named(subject, damage), bit
