"""A part of the pixel grid."""

from dataclasses import dataclass

import numpy as np

from pipeline.datasets.shapes.draws import Floats


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels ``[top, bottom) x [left, right)`` of an image; never empty."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Index of the window in an ``(H, W, ...)`` array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def x(self) -> Floats:
        """``(1, W)`` pixel centers."""
        return np.arange(self.left, self.right, dtype=np.float64)[None, :] + 0.5

    @property
    def y(self) -> Floats:
        """``(H, 1)`` pixel centers."""
        return np.arange(self.top, self.bottom, dtype=np.float64)[:, None] + 0.5
