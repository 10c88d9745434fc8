"""The nouns that annotations, teacher and store share."""

from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.views.geometry import ViewGeometry

T = TypeVar("T", bound=np.generic)

THUMBNAIL_CELLS = 8
"""Cells of a side: 192 bytes a view, beside 4 of the checksum."""

Pixels = NDArray[np.uint8]
"""``(H, W, 3)`` RGB of a view: resized and flipped, not padded, not normalized."""

NOT_MAIN = -1
"""``main_gt`` of a point outside the main region."""


class ViewKey(NamedTuple):
    """One deterministic augmentation of one image; ordered by image, then view."""

    image_id: int
    view: int


@dataclass(frozen=True, kw_only=True, eq=False)
class KeptPoints:
    """The ``P`` points that LD reads in one view, by its annotations; they ascend by level and position."""

    level: NDArray[np.integer]
    """``(P,)``, index of the pyramid level."""
    position: NDArray[np.integer]
    """``(P,)``, row-major cell in the level's grid of this view's padded size."""
    main_gt: NDArray[np.integer]
    """``(P,)``, index into the view's boxes, or ``NOT_MAIN``."""
    valuable_weight: NDArray[np.float32]
    """``(P,)`` in [0, 1], 0 outside the valuable region."""

    def __post_init__(self) -> None:
        order = (self.level.astype(np.int64) << 32) + self.position  # a cell index fits 32 bits
        assert (order[1:] > order[:-1]).all(), "points must ascend by (level, position)"

    def __len__(self) -> int:
        return len(self.level)

    @property
    def main_region(self) -> NDArray[np.bool_]:
        """``(P,)``, true where the point is an ATSS positive."""
        return np.asarray(self.main_gt != NOT_MAIN)

    @property
    def main_count(self) -> int:
        """``M``, the number of points in the main region."""
        return int(np.count_nonzero(self.main_region))

    def at_main(self, rows: NDArray[T]) -> NDArray[T]:
        """``(M, ...)`` of rows of all points, or of the main region's, which they are already."""
        return rows[self.main_region] if len(rows) == len(self) else rows


@dataclass(frozen=True, kw_only=True, eq=False)
class LabeledView:
    """A view with its ``G`` boxes and its points, before any teacher has run."""

    key: ViewKey
    geometry: ViewGeometry
    boxes_xyxy: NDArray[np.float32]
    """``(G, 4)`` px of the resized view."""
    labels: NDArray[np.int64]
    """``(G,)``, contiguous classes."""
    points: KeptPoints


@dataclass(frozen=True, kw_only=True, eq=False)
class DenseOutputs:
    """A teacher's outputs at all ``n`` positions of one view, level after level."""

    classes: NDArray[np.uint8] | NDArray[np.float32]
    """``(n, C)``: codes of ``codec.dense``, or lossless logits."""
    distances: NDArray[np.uint16] | NDArray[np.float32]
    """``(n, 4)``: in 1/32 stride, or lossless in strides."""
    tail_units: int = 0
    """Sum of the log-odds of code 0, in 1/1024."""


class SeenPixels(NamedTuple):
    """The pixels of a view, as a store remembers them."""

    crc32c: int
    thumbnail: Pixels
    """``(n, n, 3)``: means of :data:`THUMBNAIL_CELLS` by as many cells."""

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """Those of ``pixels``."""
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


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftTargets:
    """A teacher's outputs at the points of one view, in their order."""

    edge_logits: NDArray[np.float32]
    """``(P, 4, bins)``."""
    cls_logits: NDArray[np.float32]
    """``(M, C)``, at the main region; ``(P, C)``, at all points, for a store with ``valuable_classes``."""
    dense: DenseOutputs | None = None
    """At all positions, where a store holds them."""
    pixels: SeenPixels | None = None
    """What the teacher saw, where a store is to remember it."""
