"""Bytes and times of a store's first partition, by the level of compression."""

import sys
from collections.abc import Iterator
from pathlib import Path
from timeit import repeat

import numpy as np
import zarr
from numcodecs.blosc import Blosc

from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.arrays import COMPRESSOR, shuffled_bytes

LEVELS = range(1, 8)


def compare_levels(store: Path) -> Iterator[str]:
    """A line an array and level."""
    for spec in sharded_specs(TargetStore.open(store).schema):
        array, rows = zarr.open_array(store / spec.path, mode="r"), spec.chunks[0]
        shard = np.asarray(array[: array.shards[0] if array.shards else rows])
        chunks = [shard[start : start + rows] for start in range(0, len(shard), rows)]
        for level in LEVELS:
            codec = Blosc(COMPRESSOR, level, Blosc.SHUFFLE, typesize=shuffled_bytes(spec))
            frames = [codec.encode(chunk) for chunk in chunks]
            names = {"codec": codec, "chunks": chunks, "frames": frames}
            tasks = ("[codec.encode(chunk) for chunk in chunks]", "[codec.decode(frame) for frame in frames]")
            encode, decode = (1e3 * min(repeat(task, number=1, repeat=3, globals=names)) for task in tasks)
            size = sum(map(len, frames))
            yield f"{spec.path:20} level {level}: {size:,} bytes, {encode:.1f} ms, {decode:.1f} ms back"


if __name__ == "__main__":
    for line in compare_levels(Path(sys.argv[1])):
        print(line)
