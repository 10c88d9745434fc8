"""The direct reader against other programs' readers: zarr on stores of all shapes, and tensorstore."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.random import Generator
from store_cases import LOSSLESS, QUANTIZED, StoreCase, make_store_case, make_targets, make_view, write_store

from pipeline.codec.precision import Precision
from pipeline.store.format.schema import StoreSchema, sharded_specs, table_specs
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import ShardedRows, read_table
from pipeline.views.types import LabeledView, ViewKey


def random_views(rng: Generator) -> list[LabeledView]:
    """Up to 20 views; with runs of views without points, so that whole partitions are empty."""
    views = []
    for image_id in np.cumsum(rng.integers(1, 5, rng.integers(1, 21))).tolist():
        points = 0 if rng.random() < 0.4 else int(rng.integers(1, 60))
        views.append(make_view(ViewKey(image_id, 0), points, int(rng.integers(0, 4))))
    if rng.random() < 0.5:
        middle = len(views) // 2
        views[middle:] = [make_view(view.key, 0, 1) for view in views[middle:]]
    return views


def random_store_case(rng: Generator, precision: Precision) -> StoreCase:
    views = random_views(rng)
    table = ViewIndex.from_views(views)
    targets = [make_targets(view) for view in views]
    layout = StoreSchema(
        bins=targets[0].edge_logits.shape[-1],
        num_classes=targets[0].cls_logits.shape[-1],
        strides=(8, 16, 32, 64),
        precision=precision,
        views_per_partition=int(rng.integers(1, 7)),
        fingerprint={},
        provenance={},
        chunk_rows=int(rng.choice([1, 2, 3, 8, 64, 512])),
    )
    schema = fit_schema(layout, table)
    return StoreCase(views=views, targets=targets, table=table, schema=schema)


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
@pytest.mark.parametrize("seed", range(8))
def test_every_array_of_any_store_reads_as_zarr_reads_it(
    tmp_path: Path, seed: int, precision: Precision
) -> None:
    store_case = random_store_case(np.random.default_rng(seed), precision)
    path = write_store(tmp_path, store_case)
    for spec in table_specs(store_case.schema):
        expected = np.asarray(zarr.open_array(path / spec.path, mode="r")[...])
        np.testing.assert_array_equal(read_table(path, spec), expected, strict=True)
    extents = np.asarray(zarr.open_array(path / "views/extent", mode="r")[...])
    for spec in sharded_specs(store_case.schema):
        expected = np.asarray(zarr.open_array(path / spec.path, mode="r")[...])
        reader = ShardedRows(path, spec)
        column = 0 if spec.path.startswith("points/") else 2
        for first, count in extents[:, column : column + 2].tolist():
            rows = reader.read(first, count)
            np.testing.assert_array_equal(rows, expected[first : first + count], strict=True)


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_the_callers_own_and_may_be_written_to(tmp_path: Path, seed: int) -> None:
    store_case = random_store_case(np.random.default_rng(seed), QUANTIZED)
    store = TargetStore.open(write_store(tmp_path, store_case))
    for expected_view in store_case.views:
        codes = store.read(expected_view.key).edge_codes
        before = codes.copy()
        codes += 1
        np.testing.assert_array_equal(store.read(expected_view.key).edge_codes, before)


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def test_tensorstore_reads_every_array_as_zarr_does(tmp_path: Path, precision: Precision) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="tensorstore is not installed")
    path = write_store(tmp_path, make_store_case(precision))
    root = zarr.open_group(path, mode="r")
    arrays = {name: array for name, array in root.members(max_depth=None) if isinstance(array, zarr.Array)}
    assert len(arrays) == 9
    for name, array in arrays.items():
        kvstore = {"driver": "file", "path": f"{path / name}/"}
        other = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}).result()
        np.testing.assert_array_equal(other.read().result(), np.asarray(array[...]), strict=True)
