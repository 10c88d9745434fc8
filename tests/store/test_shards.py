"""The direct reader and the writer of shards against zarr, on arrays and on stores of all shapes."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from store_cases import LOSSLESS, QUANTIZED, make_view, store_case_of, write_store
from zarr.storage import LocalStore

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.format.schema import (
    CLS_CODES,
    EDGE_CODES,
    REGION,
    ArraySpec,
    chunk_key,
    sharded_specs,
    table_specs,
)
from pipeline.store.reader.shards import ShardedRows, read_table
from pipeline.store.writer.arrays import create_array, encode_shard
from pipeline.views.types import LabeledView, ViewKey


def spec_of(path: str = "rows", dtype: str = "int16") -> ArraySpec:
    return ArraySpec(path=path, dtype=dtype, shape=(64, 3), chunks=(8, 3), shards=(32, 3))


def write(folder: Path, rows: NDArray[np.int16], partition: int) -> ShardedRows:
    file = folder / "rows" / chunk_key(partition, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_shard(spec_of(), rows)[0])
    return ShardedRows(folder, spec_of())


def test_every_run_of_rows_is_what_was_written_and_the_callers_own(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (29, 3)).astype(np.int16)
    reader = write(tmp_path, rows, 1)
    for first in range(29):
        for last in range(first, 30):
            read = reader.read(32 + first, last - first)
            np.testing.assert_array_equal(read, rows[first:last], strict=True)
            read += 1


def test_rows_of_zeros_are_stored_and_not_taken_for_lost(tmp_path: Path) -> None:
    reader = write(tmp_path, np.zeros((20, 3), np.int16), 0)
    np.testing.assert_array_equal(reader.read(0, 20), np.zeros((20, 3)))


def test_rows_that_were_never_written_cost_nothing_and_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (8, 3)).astype(np.int16)
    with pytest.raises(CacheError, match=r"partition 0 of rows .* chunk 1 is missing"):
        write(tmp_path, rows, 0).read(0, 9)
    assert len(encode_shard(spec_of(), rows)[0]) < 8 * 3 * 2 + 16 + 4 + 4 * 16 + 4 + 1, "data, headers, index"


@pytest.mark.parametrize("path", [REGION, EDGE_CODES, CLS_CODES])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 20, 32])
def test_a_shard_has_the_bytes_that_zarr_gives_it(tmp_path: Path, path: str, dtype: str, count: int) -> None:
    rows = np.random.default_rng(count).integers(0, 9, (count, 3)).astype(dtype)
    rows[8:16] = 0
    spec = spec_of(path, dtype)
    create_array(LocalStore(tmp_path), spec)[:count] = rows
    assert (tmp_path / path / chunk_key(0, 2)).read_bytes() == encode_shard(spec, rows)[0]


def random_views(rng: np.random.Generator) -> list[LabeledView]:
    """Up to 20 views; with runs of views without points, so that whole partitions are empty."""
    image_ids = np.cumsum(rng.integers(1, 5, rng.integers(1, 21))).tolist()
    empty_from = len(image_ids) // 2 if rng.random() < 0.5 else len(image_ids)
    counts = [0 if place >= empty_from else int(rng.integers(0, 60)) for place in range(len(image_ids))]
    counts = [count if rng.random() < 0.6 else 0 for count in counts]
    return [
        make_view(ViewKey(i, 0), n, int(rng.integers(1, 4))) for i, n in zip(image_ids, counts, strict=True)
    ]


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
@pytest.mark.parametrize("seed", range(8))
def test_every_array_of_any_store_reads_as_zarr_reads_it(
    tmp_path: Path, seed: int, precision: Precision
) -> None:
    rng = np.random.default_rng(seed)
    sizes = {
        "views_per_partition": int(rng.integers(1, 7)),
        "chunk_rows": int(rng.choice([4, 8, 64, 512])),
    }
    store_case = store_case_of(random_views(rng), precision, **sizes)
    path = write_store(tmp_path, store_case)
    arrays = {name: np.asarray(array) for name, array in zarr.open_group(path).members(None) if "/" in name}
    for spec in table_specs(store_case.schema):
        np.testing.assert_array_equal(read_table(path, spec), arrays[spec.path], strict=True)
    for spec in sharded_specs(store_case.schema):
        reader, column = ShardedRows(path, spec), 0 if spec.path.startswith("points/") else 2
        for first, count in arrays["views/extent"][:, column : column + 2].tolist():
            expected = arrays[spec.path][first : first + count]
            np.testing.assert_array_equal(reader.read(first, count), expected, strict=True)
