"""What tells the pixels of a view from others: a checksum, and a thumbnail to compare by eye or by sum."""

from functools import lru_cache
from typing import NamedTuple, Self

import google_crc32c
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_CELLS = 8
"""Cells of a side: 192 bytes a view, beside 4 of the checksum."""

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
    return int(google_crc32c.value(np.ascontiguousarray(pixels)))


def thumbnail(pixels: Pixels, cells: int = THUMBNAIL_CELLS) -> Pixels:
    """Means of ``(cells, cells)`` cells that begin at whole pixels, rounded; exact on every machine."""
    rows, lefts, area = _cells(*pixels.shape[:2], cells)
    # Row upon row: ``reduceat`` along this axis takes five times as long.
    strips = [np.add.reduce(pixels[some], 0, np.uint32) for some in rows]
    sums = np.add.reduceat(strips, lefts, axis=1, dtype=np.int64)
    return np.asarray((2 * sums + area) // (2 * area), np.uint8)


@lru_cache(maxsize=64)
def _cells(height: int, width: int, cells: int) -> tuple[list[slice], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the cells, where their columns begin, and their pixels ``(cells, cells, 1)``."""
    edges = np.arange(cells + 1)[:, None] * (height, width) // cells
    tops, lefts = edges[:-1].T
    tall, wide = (edges[1:] - edges[:-1]).clip(min=1).T
    return list(map(slice, tops, tops + tall)), lefts, np.outer(tall, wide)[..., None]
