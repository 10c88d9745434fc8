"""A table of images is the sequence of its records, in less memory."""

import pickle
from random import Random

import pytest
from msgspec.structs import replace

from pipeline.views.manifest import Annotation, ImageRecord, ImageTable


def drawn(images: int, seed: int = 0) -> list[ImageRecord]:
    """Records ascending by id, of 0, 2 or 4 annotations with ids from all of an int64."""
    rng = Random(seed)
    ids = sorted(rng.randrange(-(2**63) + 1, 2**63 - 1) for _ in range(images))
    return [
        ImageRecord(
            image_id=image_id,
            file_name=f"{'sub/' * rng.randrange(3)}ä{image_id}.jpg",
            height=rng.randrange(1, 10**9),
            width=rng.randrange(1, 10**9),
            annotations=tuple(
                Annotation(
                    2**62 + number, -(2**63) + number, rng.gauss(0, 1e9), -0.0, 0.1, 1e-300, 7.0, *flags
                )
                for number, flags in enumerate([(False, True), (True, False)] * rng.randrange(3))
            ),
            sha256=f"{rng.randrange(2**256):064x}",
        )
        for image_id in ids
    ]


def test_records_come_back_as_they_were_in_the_order_of_their_ids() -> None:
    records = drawn(40)
    for order in (records, Random(1).sample(records, 40)):
        table = ImageTable.of(order)
        assert repr(list(table)) == repr(records)
        assert [table.row_of(record.image_id) for record in records] == list(range(40))
    for other in (records[0].image_id - 1, records[5].image_id + 1, records[-1].image_id + 1):
        with pytest.raises(KeyError):
            table.row_of(other)


def test_a_slice_is_the_table_of_the_slice() -> None:
    records = drawn(20)
    for rows in (slice(3, 9), slice(-3, None), slice(9, 3), slice(1, None, 3), slice(50, 60)):
        part = ImageTable.of(records)[rows]
        assert list(part) == records[rows]
        assert list(part[1:]) == records[rows][1:]


def test_a_part_is_sent_without_the_rest_of_its_table() -> None:
    """As each decoding process gets it."""
    table = ImageTable.of(drawn(2000))
    few, bare = pickle.dumps(table[100:110]), pickle.dumps(table.without_annotations())
    assert len(few) < len(pickle.dumps(table)) / 50
    assert list(pickle.loads(few)) == list(table[100:110])
    assert len(bare) < len(pickle.dumps(table)) - 60 * len(table.annotations)
    assert list(pickle.loads(bare)) == [replace(record, annotations=()) for record in table]
