import json

import pytest
from store_cases import LOSSLESS, QUANTIZED, make_store_case

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.format.schema import (
    FORMAT_VERSION,
    StoreSchema,
    sharded_specs,
)


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS])
def test_json_round_trip(precision: Precision) -> None:
    schema = make_store_case(precision).schema
    assert StoreSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("version", "remedy"), [(FORMAT_VERSION + 1, "update this code"), (0, "dvc repro"), (None, "dvc repro")]
)
def test_another_version_is_refused_with_a_remedy(version: int | None, remedy: str) -> None:
    document = {**make_store_case().schema.to_json(), "format_version": version}
    with pytest.raises(CacheError, match=remedy):
        StoreSchema.from_json(document)


def test_partitions_cover_all_views_once() -> None:
    schema = make_store_case().schema
    views = list(range(14))
    runs = [views[schema.partition_views(index)] for index in range(schema.partitions)]
    assert [view for run in runs for view in run] == views
    assert [len(run) for run in runs] == [4, 4, 4, 2]


def test_a_partition_is_one_shard_of_each_array() -> None:
    schema = make_store_case().schema
    for spec in sharded_specs(schema):
        assert spec.shards is not None
        assert spec.shape == (4 * spec.shards[0], spec.shards[1])
        assert spec.shards[0] % spec.chunks[0] == 0
