"""What tells the pixels of a view from others: a checksum, and a thumbnail to compare by eye or by sum."""

from typing import NamedTuple, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_CELLS = 8
"""Of a side: 192 bytes a view, beside 4 of the checksum."""

Pixels = NDArray[np.uint8]
"""``(H, W, 3)`` RGB of a view: resized and flipped, not padded, not normalized."""


class SeenPixels(NamedTuple):
    """The pixels of a view, as a store remembers them."""

    crc32c: int
    thumbnail: Pixels
    """``(n, n, 3)``: means of :data:`THUMBNAIL_CELLS` by as many cells."""

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """What is kept of ``pixels``."""
        return cls(checksum(pixels), thumbnail(pixels))


def checksum(pixels: Pixels) -> int:
    """crc32c of the pixels, row by row, the channels of a pixel side by side."""
    value: int = google_crc32c.value(np.ascontiguousarray(pixels))
    return value


def thumbnail(pixels: Pixels, cells: int = THUMBNAIL_CELLS) -> Pixels:
    """Means of ``(cells, cells)`` cells that begin at whole pixels, rounded; exact on every machine."""
    height, width, _ = pixels.shape
    starts = [np.arange(cells) * side // cells for side in (height, width)]
    rows = np.add.reduceat(pixels.reshape(height, -1), starts[0], axis=0, dtype=np.uint32)
    sums = np.add.reduceat(rows.reshape(cells, width, 3), starts[1], axis=1, dtype=np.int64)
    tall = np.diff(starts[0], append=height).clip(min=1)
    area = np.outer(tall, np.diff(starts[1], append=width).clip(min=1))[..., None]
    return np.asarray((2 * sums + area) // (2 * area), np.uint8)
