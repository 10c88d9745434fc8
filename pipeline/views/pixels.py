"""What tells the pixels of a view from others: a checksum, and a thumbnail to compare by eye or by sum."""

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


def thumbnail(pixels: Pixels) -> Pixels:
    """Means of cells that begin at whole pixels, rounded; exact on every machine."""
    edges = np.arange(THUMBNAIL_CELLS + 1)[:, None] * pixels.shape[:2] // THUMBNAIL_CELLS
    (tops, lefts), (tall, wide) = edges[:-1].T, np.diff(edges, axis=0).clip(min=1).T
    # Row upon row: ``reduceat`` along this axis takes five times as long.
    strips = [
        np.add.reduce(pixels[top:bottom], 0, np.uint32) for top, bottom in zip(tops, tops + tall, strict=True)
    ]
    sums = np.add.reduceat(strips, lefts, axis=1, dtype=np.int64)
    area = np.outer(tall, wide)[..., None]
    return np.asarray((2 * sums + area) // (2 * area), np.uint8)
