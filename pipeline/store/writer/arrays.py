"""Zarr arrays: created by zarr itself, and the shards that partitions fill."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import google_crc32c
import numpy as np
import zarr
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore

from pipeline.store.format import schema as layout
from pipeline.store.format.schema import ArraySpec, StoreSchema, sharded_specs, table_specs

COMPRESSOR: Final = "zstd"
MAX_SHUFFLED_BYTES = 255  # of an element, for Blosc


def create_arrays(root: Path, schema: StoreSchema, tables: Mapping[str, NDArray[Any]]) -> None:
    """Write every array's metadata, and the whole of the tables."""
    store = LocalStore(root)
    zarr.create_group(store, zarr_format=3)
    for spec in table_specs(schema):
        create_array(store, spec)[...] = tables[spec.path]
    for spec in sharded_specs(schema):
        create_array(store, spec)


def create_array(store: Store, spec: ArraySpec) -> "zarr.Array[Any]":
    """An empty array; what zarr itself would write into it are the bytes of :func:`encode_shard`."""
    return zarr.create_array(
        store,
        name=spec.path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        # The checksum is outermost, over the bytes on the disk: Blosc does not notice a flipped bit.
        compressors=[
            BloscCodec(
                cname=COMPRESSOR,
                clevel=spec.compression_level,
                shuffle="shuffle",
                typesize=shuffled_bytes(spec),
            ),
            Crc32cCodec(),
        ],
        fill_value=0,
        attributes={"columns": list(spec.columns)} if spec.columns else {},
        # zarr leaves out chunks of zeros otherwise, and a lost chunk would look the same.
        config={"write_empty_chunks": True},
    )


def encode_shard(spec: ArraySpec, rows: NDArray[Any]) -> tuple[bytes, str]:
    """One shard that starts with ``rows`` (n > 0, columns), without chunks behind them, and its signature.

    Its bytes are zarr's own, without its event loop, which takes longer than the compression: see
    ``reader.shards``. The checksums of its first chunk and of its index tell it from any other.
    """
    assert rows.dtype == spec.dtype, f"{spec.path}: expected {spec.dtype}, but got {rows.dtype}"
    codec = Blosc(COMPRESSOR, spec.compression_level, Blosc.SHUFFLE, typesize=shuffled_bytes(spec))
    chunks = -(-len(rows) // spec.chunks[0])
    padded = np.zeros((chunks, *spec.chunks), np.dtype(spec.dtype).newbyteorder("<"))
    padded.reshape(-1, *spec.chunks[1:])[: len(rows)] = rows
    frames = [_checksummed(codec.encode(chunk)) for chunk in padded]
    index = np.full((spec.shard_rows // spec.chunks[0], 2), layout.NO_CHUNK, "<u8")
    index[:chunks, 1] = [len(frame) for frame in frames]
    index[:chunks, 0] = np.cumsum(index[:chunks, 1]) - index[:chunks, 1]
    end = _checksummed(index.tobytes())
    return b"".join([*frames, end]), (frames[0][-layout.CRC_BYTES :] + end[-layout.CRC_BYTES :]).hex()


def _checksummed(content: bytes) -> bytes:
    return content + int(google_crc32c.value(content)).to_bytes(layout.CRC_BYTES, "little")


def shuffled_bytes(spec: ArraySpec) -> int:
    """The bytes that Blosc's shuffle takes for one element.

    A whole row of regions, whose columns are as different as a level and a weight, takes a fifth less, and of
    the dense arrays a sixth. Other codes gain 1 % at most, and then decompress half as fast.
    """
    itemsize = np.dtype(spec.dtype).itemsize
    row = itemsize * spec.shape[-1]
    whole = spec.path in (layout.REGION, *layout.DENSE) and row <= MAX_SHUFFLED_BYTES
    return row if whole else itemsize
