"""What tells one shard from another without reading the whole of it."""

import numpy as np

from pipeline.store.format.schema import ArraySpec

CRC_BYTES = 4
"""A crc32c."""

INDEX_ENTRY_BYTES = 16
"""Offset and size of a chunk, two little-endian uint64."""

NO_CHUNK = 2**64 - 1
"""Offset and size of a chunk that was never written."""


def shard_signature(content: bytes, spec: ArraySpec) -> str:
    """What tells a whole shard from any other: the checksums of its first chunk and of its index, as hex."""
    assert spec.shards is not None, f"{spec.path} is not sharded"
    chunks = spec.shards[0] // spec.chunks[0]
    index = content[len(content) - INDEX_ENTRY_BYTES * chunks - CRC_BYTES :]
    offset, size = np.frombuffer(index[:INDEX_ENTRY_BYTES], dtype="<u8").tolist()
    return (content[offset + size - CRC_BYTES : offset + size] + index[-CRC_BYTES:]).hex()
