"""Damage of every kind is found by a reader or does not matter to it, and `verify` names the file."""

from random import Random

import pytest
from damage import (
    AT_OPEN,
    AT_READ,
    CUT,
    HARMLESS,
    KINDS,
    NAMED,
    REMOVED,
    ROOT_METADATA,
    SWAPPED,
    WRONG,
    ZEROED,
    Damage,
    Subject,
    draw_flips,
    draw_larger,
    flip,
    look_for,
    open_and_read,
    read,
    swappable,
    try_out,
)
from stores import make_plan, write_remaining

from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("damage")
    plan = make_plan(10, views_per_partition=3, most_points=30, chunk_rows=8)
    write_remaining(folder / "scratch", folder / "targets.zarr", plan)
    return Subject.copy(folder / "targets.zarr", folder / "copy.zarr")


def test_flipped_bits_all_over_the_store(subject: Subject) -> None:
    tally = try_out(subject, draw_flips(subject.content, 2 * len(subject.content), Random(0)))
    assert tally.problems == []
    assert tally.damages.total() == 2 * len(subject.content)


def test_files_cut_removed_zeroed_and_lengthened(subject: Subject) -> None:
    damages = [damage for damage in draw_larger(subject.content, 40, Random(0)) if damage.kind != SWAPPED]
    tally = try_out(subject, damages)
    assert tally.problems == []
    assert set(tally.damages) == set(KINDS[1:]) - {SWAPPED}


def test_files_of_equal_size_that_are_swapped(subject: Subject) -> None:
    assert swappable(subject.content)
    damages = [damage for damage in draw_larger(subject.content, 40, Random(1)) if damage.kind == SWAPPED]
    assert try_out(subject, damages).problems == []


def test_every_bit_around_the_attributes_is_under_the_seal(subject: Subject) -> None:
    """What frames the attributes in the root's metadata is no attribute itself."""
    content = subject.content[ROOT_METADATA]
    frame = content.index(b'"title"')
    bits = [*range(8 * frame), *range(8 * (len(content) - 8), 8 * len(content))]
    for damage in (flip(subject.content, ROOT_METADATA, bit) for bit in bits):
        subject.apply(damage)
        try:
            assert look_for(subject, damage).name == NAMED, damage.what
        finally:
            subject.mend(damage)


def test_the_experiment_sees_a_wrong_value(subject: Subject) -> None:
    """The oracle itself: a reader that gives values of another view is caught."""
    first, second = list(subject.values)[:2]

    class Confused(TargetStore):
        def read(self, key: ViewKey) -> StoredView:
            return super().read(second if key == first else key)

    opened = Confused.open(subject.path)
    assert read(subject, opened, [first]).name == WRONG
    assert read(subject, opened, [second]).name == HARMLESS


def test_the_experiment_tells_where_damage_was_found(subject: Subject) -> None:
    name = next(name for name in subject.content if name.startswith("points/region/c/"))
    for damage, expected in [
        (Damage(kind=REMOVED, files={name: None}, what=name), AT_OPEN),
        (Damage(kind=CUT, files={name: b""}, what=name), AT_OPEN),
        (Damage(kind=ZEROED, files={name: bytes(len(subject.content[name]))}, what=name), AT_READ),
    ]:
        subject.apply(damage)
        assert open_and_read(subject, subject.touched(damage)).name == expected
        subject.mend(damage)
