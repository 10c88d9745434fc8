import numpy as np
import pytest
from store_cases import CHUNK_ROWS, VIEWS_PER_PARTITION, make_store_case, make_view, store_case_of

from pipeline.core.errors import CacheError
from pipeline.store.format.schema import EXTENT
from pipeline.store.format.table import ViewIndex, geometry_from_row, geometry_row
from pipeline.views.types import ViewKey


def test_extents_are_what_a_loop_over_the_partitions_finds() -> None:
    store_case = make_store_case()
    extents = store_case.table.arrays(store_case.schema)[EXTENT]
    box = 0
    for number, view in enumerate(store_case.views):
        partition, within = divmod(number, VIEWS_PER_PARTITION)
        if within == 0:
            point, main = (
                partition * store_case.schema.points_per_shard,
                partition * store_case.schema.main_per_shard,
            )
        counts = len(view.points), view.points.main_count, len(view.labels)
        assert extents[number].tolist() == [point, counts[0], main, counts[1], box, counts[2]]
        point, main, box = point + counts[0], main + counts[1], box + counts[2]


def test_shards_hold_the_fullest_partition_in_whole_chunks() -> None:
    schema = make_store_case().schema
    assert schema.points_per_shard == 64, "20 + 0 + 9 + 31 = 60 points, in chunks of 8"
    assert schema.main_per_shard == 16, "6 + 0 + 0 + 10 = 16 main-region points, in chunks of 8"


def test_a_plan_without_points_or_views_still_has_a_layout() -> None:
    assert store_case_of([make_view(ViewKey(1, 0), 0, 0)]).schema.points_per_shard == CHUNK_ROWS
    empty = store_case_of([])
    assert (empty.schema.partitions, empty.schema.boxes) == (0, 0)


def test_tables_of_parts_join_to_the_table_of_the_whole() -> None:
    store_case = make_store_case()
    parts = [ViewIndex.from_views(store_case.views[:5]), ViewIndex.from_views(store_case.views[5:])]
    assert ViewIndex.concatenate(parts).digest() == store_case.table.digest()


@pytest.mark.parametrize("keys", [[(1, 1), (1, 0)], [(2, 0), (1, 0)], [(1, 0), (1, 0)]])
def test_keys_that_do_not_ascend_are_refused(keys: list[tuple[int, int]]) -> None:
    views = [make_view(ViewKey(*key), 3, 1) for key in keys]
    with pytest.raises(CacheError, match="ascending"):
        ViewIndex.from_views(views)


def test_digest_tells_plans_apart() -> None:
    store_case = make_store_case()
    other = ViewIndex.from_views([*store_case.views[:-1], make_view(store_case.views[-1].key, 4, 1)])
    assert other.digest() != store_case.table.digest()


def test_geometry_row_round_trip() -> None:
    geometry = make_view(ViewKey(1, 1), 1, 1).geometry
    assert geometry_from_row(np.array(geometry_row(geometry)).tolist(), "keep_ratio") == geometry
