"""Reading zarr arrays without zarr: one positional read per inner chunk of a shard.

zarr v3's ``sharding_indexed`` codec puts the compressed chunks of a shard one after another into one file
and ends it with an index: (offset, size) as little-endian uint64 per chunk, then the crc32c of the index.
Each chunk here is a Blosc frame followed by its crc32c. Nothing stays open between two reads, so that a
reader may be used before and after a fork.
"""

import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pipeline.cache.schema import ArraySpec, chunk_key
from pipeline.errors import CacheError

CRC_BYTES = 4
CRC_RESIDUE = 0x48674BC7
"""The crc32c of any bytes followed by their own crc32c (little-endian)."""
INDEX_ENTRY_BYTES = 16
NO_CHUNK = 2**64 - 1
"""Offset and size of a chunk that was never written."""

# As zarr sets it: Blosc's own threads gain nothing on chunks this small, and do not survive a fork.
blosc.use_threads = False


def read_table(store: Path, spec: ArraySpec) -> NDArray[Any]:
    """The whole of an array of a single chunk.

    Raises:
        CacheError: The chunk's checksum differs.
    """
    values = np.empty(spec.shape, spec.dtype)
    if len(values):
        content = (store / spec.path / chunk_key(0, len(spec.shape))).read_bytes()
        if not _checksum_holds(content):
            raise _damaged(f"{spec.path} of {store}", "its checksum differs")
        blosc.decompress(content, values)
    return values


class ShardedRows:
    """The rows of one sharded array.

    Args:
        store: Folder of the store.
        spec: A sharded array of it, with a single column of chunks.
    """

    def __init__(self, store: Path, spec: ArraySpec) -> None:
        assert spec.shards is not None, f"{spec.path} is not sharded"
        self._folder = str(store / spec.path)
        self._where = f"{spec.path} of {store}"
        self._dtype = np.dtype(spec.dtype)
        self._columns = spec.shape[1]
        self._chunk_rows = spec.chunks[0]
        self._shard_rows = spec.shards[0]
        self._indices: dict[int, NDArray[np.uint64]] = {}

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Rows ``start..start + count`` of one partition, (count, columns).

        Raises:
            CacheError: The shard or a chunk is missing, or a checksum differs.
        """
        if not count:
            return np.empty((0, self._columns), self._dtype)
        partition, first = divmod(start, self._shard_rows)
        chunks = range(first // self._chunk_rows, -(-(first + count) // self._chunk_rows))
        rows = np.empty((len(chunks), self._chunk_rows, self._columns), self._dtype)
        descriptor = self._open(partition)
        try:
            index = self._index(descriptor, partition)
            for slot, chunk in enumerate(chunks):
                blosc.decompress(self._frame(descriptor, partition, chunk, index), rows[slot])
        finally:
            os.close(descriptor)
        skipped = first - chunks.start * self._chunk_rows
        return rows.reshape(-1, self._columns)[skipped : skipped + count]

    def _open(self, partition: int) -> int:
        try:
            return os.open(f"{self._folder}/{chunk_key(partition, 2)}", os.O_RDONLY)
        except FileNotFoundError:
            raise self._damaged(partition, "the shard is missing") from None

    def _index(self, descriptor: int, partition: int) -> NDArray[np.uint64]:
        """(chunks, 2) offset and size of each chunk of a shard, parsed once."""
        if partition not in self._indices:
            size = INDEX_ENTRY_BYTES * (self._shard_rows // self._chunk_rows) + CRC_BYTES
            start = os.fstat(descriptor).st_size - size
            if start < 0:
                raise self._damaged(partition, "the shard is too short for its index")
            content = self._checked(os.pread(descriptor, size, start), partition, "the index")
            self._indices[partition] = np.frombuffer(content[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)
        return self._indices[partition]

    def _frame(self, descriptor: int, partition: int, chunk: int, index: NDArray[np.uint64]) -> bytes:
        """A chunk as stored; Blosc knows where it ends and leaves the checksum alone."""
        offset, size = index[chunk].tolist()
        if offset == NO_CHUNK:
            raise self._damaged(partition, f"chunk {chunk} is missing")
        return self._checked(os.pread(descriptor, size, offset), partition, f"chunk {chunk}")

    def _checked(self, content: bytes, partition: int, what: str) -> bytes:
        """``content``, which ends with its checksum."""
        if not _checksum_holds(content):
            raise self._damaged(partition, f"the checksum of {what} differs")
        return content

    def _damaged(self, partition: int, problem: str) -> CacheError:
        return _damaged(f"partition {partition} of {self._where}", problem)


def _checksum_holds(content: bytes) -> bool:
    """Whether the last four bytes are the crc32c of those before; nothing at all is no content."""
    return len(content) > CRC_BYTES and google_crc32c.value(content) == CRC_RESIDUE


def _damaged(where: str, problem: str) -> CacheError:
    return CacheError(
        f"{where} is damaged: {problem}; "
        "fetch the store again with `dvc pull --force`, or make it with `dvc repro -f cache_teacher`"
    )
