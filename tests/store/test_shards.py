"""The direct reader and the writer of shards against zarr."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from zarr.storage import LocalStore

from pipeline.core.errors import CacheError
from pipeline.store.format.schema import CLS_CODES, EDGE_CODES, REGION, ArraySpec
from pipeline.store.reader.shards import ShardedRows
from pipeline.store.writer.arrays import create_array, encode_shard


def spec_of(path: str = "rows", dtype: str = "int16") -> ArraySpec:
    return ArraySpec(path=path, dtype=dtype, shape=(64, 3), chunks=(8, 3), shards=(32, 3))


def write(folder: Path, rows: NDArray[np.int16], partition: int) -> ShardedRows:
    file = folder / spec_of().file(partition)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode_shard(spec_of(), rows)[0])
    return ShardedRows(folder, spec_of(), {})


def test_every_run_of_rows_is_what_was_written_and_the_callers_own(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(-9, 9, (29, 3)).astype(np.int16)
    rows[8:16] = 0  # a chunk of zeros is stored, and not taken for a lost one
    reader = write(tmp_path, rows, 1)
    for first in range(29):
        for last in range(first, 30):
            read = reader.read(32 + first, last - first)
            np.testing.assert_array_equal(read, rows[first:last], strict=True)
            read += 1


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
    assert (tmp_path / spec.file(0)).read_bytes() == encode_shard(spec, rows)[0]
