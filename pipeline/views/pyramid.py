"""Positions, points and anchors of a feature pyramid, without torch: a store can be read without it.

The point of cell ``(row, column)`` on a level of stride ``s`` is ``((column + o) * s, (row + o) * s)`` px,
with an offset ``o``: 0 for GFL (mmdetection ``AnchorGenerator`` with ``center_offset=0``), 0.5 for YOLO. A
position is a level and its row-major cell there, or one *flat* number that counts through all levels.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

ANCHOR_SCALE = 8
"""Side of the square anchor in strides (``octave_base_scale`` of the GFL configurations)."""

Size = tuple[int, int]
"""``(height, width)``, in pixels of an image or in cells of a level."""


@dataclass(frozen=True)
class Pyramid:
    """Where a detector predicts, for images of any size."""

    strides: tuple[int, ...]
    """Strides of the levels, px."""
    point_offset: float
    """Offset of a point in its cell, strides."""

    def grid(self, image_hw: Size) -> "Grid":
        """The grid for an image of ``image_hw`` px; each level's cells are rounded up."""
        height, width = image_hw
        return self.grid_of(tuple((-(-height // stride), -(-width // stride)) for stride in self.strides))

    @lru_cache(maxsize=8)  # noqa: B019 (what it keeps is small)
    def grid_of(self, sizes: tuple[Size, ...]) -> "Grid":
        """The grid whose levels have ``sizes`` cells: views of an image mostly share one with its arrays."""
        return Grid(self, sizes)


@dataclass(frozen=True)
class Grid:
    """The ``N`` positions of a pyramid over one image, level after level, row-major in each."""

    pyramid: Pyramid
    sizes: tuple[Size, ...]
    """Cells ``(height, width)`` of every level."""

    def __post_init__(self) -> None:
        strides = self.pyramid.strides
        assert len(self.sizes) == len(strides), f"expected {len(strides)} levels, but got {len(self.sizes)}"

    def __len__(self) -> int:
        """``N``."""
        return sum(self.lengths)

    @cached_property
    def lengths(self) -> list[int]:
        """Positions of every level."""
        return [height * width for height, width in self.sizes]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Flat number of every level's first position, ``(levels,)``."""
        return np.cumsum([0, *self.lengths], dtype=np.int64)[:-1]

    def flatten(self, level: NDArray[np.integer], position: NDArray[np.integer]) -> NDArray[np.int64]:
        """Flat numbers ``(P,)`` of cells ``position`` ``(P,)`` on levels ``level`` ``(P,)``."""
        return np.asarray(self.starts[level] + position, np.int64)

    def unflatten(self, flat: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Level and position, ``(P,)`` each, of flat numbers ``(P,)``; the inverse of :meth:`flatten`."""
        level = np.searchsorted(self.starts + self.lengths, flat, side="right").astype(np.int64)
        return level, flat - self.starts[level]

    def flatten_into(
        self, wider: "Grid", level: NDArray[np.integer], position: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Flat numbers ``(P,)`` of this grid's cells in a ``wider`` one that begins at the same point."""
        widths, wider_widths = (np.asarray([width for _, width in grid.sizes]) for grid in (self, wider))
        row, column = np.divmod(position.astype(np.int64), widths[level])
        return wider.flatten(level, row * wider_widths[level] + column)

    def axes(self, level: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``y`` of a level's rows and ``x`` of its columns, px."""
        offset, stride = np.float32(self.pyramid.point_offset), np.float32(self.pyramid.strides[level])
        y, x = ((np.arange(cells, dtype=np.float32) + offset) * stride for cells in self.sizes[level])
        return y, x

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """Points ``(N, 2)`` as ``(x, y)`` px."""
        meshes = [np.meshgrid(*self.axes(level), indexing="ij") for level in range(len(self.sizes))]
        return np.concatenate([np.stack([x, y], axis=-1).reshape(-1, 2) for y, x in meshes])

    @cached_property
    def point_strides(self) -> NDArray[np.float32]:
        """The stride of each point's level, ``(N,)`` px."""
        return np.repeat(np.asarray(self.pyramid.strides, np.float32), self.lengths)

    @cached_property
    def anchors(self) -> NDArray[np.float32]:
        """Squares ``(N, 4)`` of side ``8 * stride`` around the points, as ``(x1, y1, x2, y2)`` px."""
        half = self.point_strides[:, None] * np.float32(ANCHOR_SCALE / 2)
        return np.concatenate([self.points - half, self.points + half], axis=1)

    def valid(self, padded_hw: Size) -> NDArray[np.bool_]:
        """Cells ``(N,)`` that lie in an image padded to ``padded_hw`` px: others get no target."""
        masks = [np.zeros(size, np.bool_) for size in self.sizes]
        for mask, (rows, columns) in zip(masks, self.pyramid.grid(padded_hw).sizes, strict=True):
            mask[:rows, :columns] = True
        return np.concatenate([mask.ravel() for mask in masks])
