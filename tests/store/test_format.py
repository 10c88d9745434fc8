"""The layout of a store, the index of its views, and what it was made from."""

import json
from typing import Any

import pytest
from store_cases import CHUNK_ROWS, LOSSLESS, QUANTIZED, make_store_case, make_view, store_case_of

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.core.files import digest
from pipeline.store.format.attributes import check_compatible, diff
from pipeline.store.format.schema import (
    COMPRESSION_LEVEL,
    EARLIER_COMPRESSION_LEVEL,
    StoreSchema,
    sharded_specs,
)
from pipeline.store.format.table import ViewIndex
from pipeline.views.types import ViewKey

STORED = {"teacher": {"weights": "abc", "stride": 8}, "views": [1, 2]}


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS])
def test_json_round_trip(precision: Precision) -> None:
    schema = make_store_case(precision).schema
    assert StoreSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_a_store_that_does_not_say_its_level_of_compression_has_the_earlier_one() -> None:
    """As stores of formats 2 and 3 that are repaired to the bytes that they had."""
    document = make_store_case().schema.to_json()
    assert document.pop("compression_level") == COMPRESSION_LEVEL
    specs = sharded_specs(StoreSchema.from_json(document))
    assert {spec.compression_level for spec in specs} == {EARLIER_COMPRESSION_LEVEL}


def test_partitions_cover_all_views_and_shards_hold_the_fullest_in_whole_chunks_and_one_at_least() -> None:
    schema = make_store_case().schema
    runs = [schema.partition_views(index) for index in range(schema.partitions)]
    assert [(run.start, run.stop) for run in runs] == [(0, 4), (4, 8), (8, 12), (12, 14)]
    assert schema.points_per_shard == 64, "20 + 0 + 9 + 31 = 60 points, in chunks of 8"
    assert schema.main_per_shard == 16, "6 + 0 + 0 + 10 = 16 main-region points, in chunks of 8"
    assert store_case_of([make_view(ViewKey(1, 0), 0, 0)]).schema.points_per_shard == CHUNK_ROWS
    empty = store_case_of([]).schema
    assert (empty.partitions, empty.boxes) == (0, 0)


@pytest.mark.parametrize("keys", [[(1, 1), (1, 0)], [(2, 0), (1, 0)], [(1, 0), (1, 0)]])
def test_keys_that_do_not_ascend_are_refused(keys: list[tuple[int, int]]) -> None:
    views = [make_view(ViewKey(*key), 3, 1) for key in keys]
    with pytest.raises(CacheError, match="ascending"):
        ViewIndex.from_views(views)


def test_digest_is_of_the_values_whatever_the_order_of_keys() -> None:
    """``printf '{"a":[1,2]}' | sha256sum``, so that no release changes what stores are keyed by."""
    assert digest({"a": (1, 2)}) == "01530d164d479cf08e26d3b1ad9bdba927120d97e2d057a6d792db778780d720"
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 2})


def test_equal_and_partial_needs_are_met_and_a_value_is_no_section() -> None:
    check_compatible(STORED, STORED)
    check_compatible(STORED, {"teacher": {"stride": 8}, "views": (1, 2)})
    assert diff(STORED, {"teacher": "abc"}) == ("teacher", '{"stride":8,"weights":"abc"}', '"abc"')


@pytest.mark.parametrize(
    ("needed", "words"),
    [
        ({"weights": "xyz"}, r'teacher\.weights is "abc" in the store, but "xyz" is needed'),
        ({"depth": 101}, r"teacher\.depth is \(absent\) in the store, but 101 is needed"),
    ],
)
def test_a_mismatch_names_the_path_and_both_values(needed: dict[str, Any], words: str) -> None:
    with pytest.raises(CacheError, match=words):
        check_compatible(STORED, {"views": [3], "teacher": needed})
