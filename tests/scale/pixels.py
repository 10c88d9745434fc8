"""What a view's checksum and thumbnail cost beside its decoding.

    uv run python tests/scale/pixels.py IMAGES_FOLDER STORE --scale 1333 800

CPU milliseconds a view, the fastest of some repeats, of the first images and of the checksums of a store.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from timeit import repeat

import numpy as np
from PIL import Image

from pipeline import open_store
from pipeline.store.format.schema import PIXELS_CRC32C, sharded_specs
from pipeline.store.reader.shards import ShardedRows
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.geometry import ViewsConfig
from pipeline.views.images import apply_view, read_image
from pipeline.views.types import Pixels, checksum, thumbnail


def milliseconds(work: Callable[[], object]) -> float:
    return 1000 * min(repeat(work, number=1, repeat=5, timer=time.process_time))


def decode(scale: tuple[int, int], file: Path) -> Pixels:
    """As the training does: read, resized, mirrored."""
    with Image.open(file) as image:
        size_hw = (image.height, image.width)
    geometry = ViewsConfig(scales=(scale,), flips=(True,)).geometry(size_hw, 0, 0)
    view = apply_view(read_image(file, size_hw), geometry, GFL_PREPROCESSING)
    return np.asarray(view.permute(1, 2, 0).numpy())


def measure(files: list[Path], store: Path, scale: tuple[int, int]) -> str:
    views = [decode(scale, file) for file in files]
    decoding = np.mean([milliseconds(partial(decode, scale, file)) for file in files])
    crc, cells = (np.mean([milliseconds(partial(of, v)) for v in views]) for of in (checksum, thumbnail))
    (spec,) = (spec for spec in sharded_specs(open_store(store).schema) if spec.path == PIXELS_CRC32C)
    rows = ShardedRows(store, spec, {})
    read = milliseconds(lambda: [rows.read(0, 1) for _ in range(100)]) / 100
    return (
        f"decoding {decoding:.2f} ms, checksum {crc:.3f} ms, reading the stored one {read:.3f} ms "
        f"({(crc + read) / decoding:.1%} of decoding); when cached: thumbnail {cells:.3f} ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--scale", type=int, nargs=2, required=True)
    parsed = parser.parse_args()
    print(measure(sorted(parsed.images.iterdir())[:64], parsed.store, tuple(parsed.scale)))
