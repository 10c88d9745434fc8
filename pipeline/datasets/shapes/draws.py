"""What all drawing shares: types, a part of the pixel grid, the same random numbers everywhere, curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Point = tuple[float, float]
Color = tuple[float, ...]
"""Red, green and blue, in [0, 1]."""
Range = tuple[float, float]
Box = tuple[float, float, float, float]


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


def uniform(rng: RandomState, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random_sample())


def log_uniform(rng: RandomState, low: float, high: float) -> float:
    return round(low * math.exp(uniform(rng, 0.0, math.log(high / low))), 4)


def pick(rng: RandomState, count: int) -> int:
    return int(float(rng.random_sample()) * count)


def pick_weighted(rng: RandomState, weights: Sequence[float]) -> int:
    left = float(rng.random_sample())
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0.0:
            return index
    return len(weights) - 1


def cos_sin(turn: float) -> Point:
    """Cosine and sine of a share of a full turn, rounded: the last bit of libm differs between machines."""
    angle = 2.0 * math.pi * turn
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def clamp(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, 0.0), 1.0)


def smoothstep(values: Floats) -> Floats:
    t = clamp(values)
    return t * t * (3.0 - 2.0 * t)
