from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from pipeline.core.errors import CacheError
from pipeline.store.format.schema import CLS_CODES, EDGE_CODES, REGION, ArraySpec, chunk_key
from pipeline.store.reader.shards import ShardedRows
from pipeline.store.writer.arrays import create_array, encode_shard

SPEC = ArraySpec(path="rows", dtype="int16", shape=(64, 3), chunks=(8, 3), shards=(32, 3))


def write(folder: Path, rows: NDArray[np.int16], partition: int) -> None:
    file = folder / SPEC.path / chunk_key(partition, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_shard(SPEC, rows))


def test_every_run_of_rows_is_what_was_written(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (29, 3)).astype(np.int16)
    write(tmp_path, rows, 1)
    reader = ShardedRows(tmp_path, SPEC)
    for first in range(29):
        for last in range(first, 30):
            np.testing.assert_array_equal(reader.read(32 + first, last - first), rows[first:last])


def test_rows_of_zeros_are_stored_and_not_taken_for_lost(tmp_path: Path) -> None:
    write(tmp_path, np.zeros((20, 3), np.int16), 0)
    np.testing.assert_array_equal(ShardedRows(tmp_path, SPEC).read(0, 20), np.zeros((20, 3)))


def test_rows_that_were_never_written_cost_nothing_and_are_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (8, 3)).astype(np.int16)
    write(tmp_path, rows, 0)
    with pytest.raises(CacheError, match=r"partition 0 of rows .* chunk 1 is missing"):
        ShardedRows(tmp_path, SPEC).read(0, 9)
    assert len(encode_shard(SPEC, rows)) < 8 * 3 * 2 + 16 + 4 + 4 * 16 + 4 + 1, "data, headers, index"


def test_no_rows_need_no_shard(tmp_path: Path) -> None:
    nothing = ShardedRows(tmp_path, SPEC).read(0, 0)
    assert (nothing.shape, nothing.dtype) == ((0, 3), np.int16)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_a_shard_written_by_zarr_itself_reads_the_same(tmp_path: Path, dtype: str) -> None:
    """Against an array that zarr wrote to the disk by its own ways, chunk by chunk."""
    values = (np.random.default_rng(1).random((64, 3)) * 100).astype(dtype)
    array = zarr.create_array(
        tmp_path / "rows",
        shape=values.shape,
        dtype=dtype,
        chunks=SPEC.chunks,
        shards=SPEC.shards,
        compressors=[zarr.codecs.BloscCodec(cname="lz4"), zarr.codecs.Crc32cCodec()],
    )
    array[...] = values
    spec = ArraySpec(path="rows", dtype=dtype, shape=(64, 3), chunks=(8, 3), shards=(32, 3))
    np.testing.assert_array_equal(ShardedRows(tmp_path, spec).read(35, 20), values[35:55])


@pytest.mark.parametrize("path", [REGION, EDGE_CODES, CLS_CODES])
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 20, 32])
def test_a_shard_has_the_bytes_that_zarr_gives_it(tmp_path: Path, path: str, dtype: str, count: int) -> None:
    rows = np.random.default_rng(count).integers(-9, 9, (count, 3)).astype(dtype)
    rows[8:16] = 0
    spec = ArraySpec(path=path, dtype=dtype, shape=(32, 3), chunks=(8, 3), shards=(32, 3))
    create_array(LocalStore(tmp_path), spec)[:count] = rows
    assert (tmp_path / path / chunk_key(0, 2)).read_bytes() == encode_shard(spec, rows)
