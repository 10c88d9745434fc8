"""Reading zarr arrays without zarr: one positional read per inner chunk of a shard.

zarr v3's ``sharding_indexed`` codec puts the compressed chunks of a shard one after another into one file,
and then an index of their offsets and sizes; each of these ends with its crc32c. Nothing stays open between
two reads, so that a reader may be used before and after a fork.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pipeline.core.errors import CacheError
from pipeline.store.format.attributes import REPAIR_HINT
from pipeline.store.format.schema import CRC_BYTES, NO_CHUNK, ArraySpec

CRC_RESIDUE = 0x48674BC7  # the crc32c of any bytes followed by their own crc32c (little-endian)

# As zarr sets it: Blosc's own threads gain nothing on chunks this small, and do not survive a fork.
blosc.use_threads = False


def read_table(store: Path, spec: ArraySpec) -> NDArray[Any]:
    """The whole of an array of a single chunk; a ``CacheError`` if its checksum differs."""
    values = np.empty(spec.shape, spec.dtype)
    if len(values):
        content = (store / spec.file(0)).read_bytes()
        blosc.decompress(_checked(content, f"{spec.path} of {store}", "the table"), values)
    return values


class ShardedRows:
    """The rows of a sharded array with one column of chunks; its ``marks``, by path: see ``encode_shard``."""

    def __init__(self, store: Path, spec: ArraySpec, marks: Mapping[str, str]) -> None:
        self._store, self._spec, self._marks = store, spec, marks
        self._chunk_rows, self._columns = spec.chunks
        self._chunk_bytes = self._chunk_rows * self._columns * np.dtype(spec.dtype).itemsize
        self._indices: dict[int, tuple[tuple[int, ...], NDArray[np.uint64]]] = {}

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Rows ``start..start + count`` of one partition, (count, columns); a ``CacheError`` if damaged."""
        if not count:
            return np.empty((0, self._columns), self._spec.dtype)
        partition, first = divmod(start, self._spec.shard_rows)
        chunks = range(first // self._chunk_rows, -(-(first + count) // self._chunk_rows))
        rows = np.empty((len(chunks), self._chunk_rows, self._columns), self._spec.dtype)
        where = f"partition {partition} of {self._spec.path} of {self._store}"
        try:
            descriptor = os.open(f"{self._store}/{self._spec.file(partition)}", os.O_RDONLY)
        except FileNotFoundError:
            raise _damaged(where, "the shard is missing") from None
        try:
            index = self._index(descriptor, partition, where)
            for slot, chunk in enumerate(chunks):
                blosc.decompress(self._frame(descriptor, chunk, index, where), rows[slot])
        finally:
            os.close(descriptor)
        skipped = first - chunks.start * self._chunk_rows
        return rows.reshape(-1, self._columns)[skipped : skipped + count]

    def _index(self, descriptor: int, partition: int, where: str) -> NDArray[np.uint64]:
        """(chunks, 2) offset and size of each chunk of a shard, parsed once for each file that was there."""
        status = os.fstat(descriptor)
        # Offset and size of each chunk are two little-endian uint64.
        size = 16 * (self._spec.shard_rows // self._chunk_rows) + CRC_BYTES
        # What changes when another file takes a shard's place.
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._indices.get(partition)
        if known and known[0] == identity:
            return known[1]
        if status.st_size < size:
            raise _damaged(where, "the shard is too short for its index")
        content = _checked(os.pread(descriptor, size, status.st_size - size), where, "the index")
        index = np.frombuffer(content[:-CRC_BYTES], dtype="<u8").reshape(-1, 2)
        # Another whole shard may lie in its place: checksums alone would hold there.
        if expected := self._marks.get(self._spec.file(partition)):
            offset, size = index[0].tolist()
            first = b"" if offset == NO_CHUNK else os.pread(descriptor, CRC_BYTES, offset + size - CRC_BYTES)
            if (first + content[-CRC_BYTES:]).hex() != expected:
                raise _damaged(where, "the checksums of its first chunk and index are not those recorded")
        self._indices[partition] = (identity, index)
        return index

    def _frame(self, descriptor: int, chunk: int, index: NDArray[np.uint64], where: str) -> bytes:
        """A chunk as stored; Blosc knows where it ends and leaves the checksum alone."""
        offset, size = index[chunk].tolist()
        if offset == NO_CHUNK:
            raise _damaged(where, f"chunk {chunk} is missing")
        content = _checked(os.pread(descriptor, size, offset), where, f"chunk {chunk}")
        # Bytes 4 to 7 of a Blosc frame: what it holds. Shorter, it would leave memory as it happened to be.
        if int.from_bytes(content[4:8], "little") != self._chunk_bytes:
            raise _damaged(where, f"chunk {chunk} is of another size")
        return content


def _checked(content: bytes, where: str, what: str) -> bytes:
    """Bytes that end with the crc32c of those before; nothing at all is no content."""
    if len(content) <= CRC_BYTES or google_crc32c.value(content) != CRC_RESIDUE:
        raise _damaged(where, f"the checksum of {what} differs")
    return content


def _damaged(where: str, problem: str) -> CacheError:
    return CacheError(f"{where} is damaged: {problem}; {REPAIR_HINT}")
