"""What all drawing shares: types, a part of the pixel grid, random numbers, curves, colors and textures."""

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


TINTS = ((0.85, 0.25, 0.2), (0.2, 0.7, 0.3), (0.2, 0.35, 0.9), (0.95, 0.8, 0.2))
"""What the surfaces of a class lean to: what an object is shows better than where it ends, as in photos."""

TINT_SHARE = (0.3, 0.9)
"""Share of the tint in a surface, the rest being what is under it: faint to clear."""


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


def value_noise(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    """Noise in [0, 1] for ``x (1, W)``, ``y (H, 1)``: a random node every ``period`` px, smoothly filled."""
    u, v = (x[0] - x[0, 0]) / period, (y[:, 0] - y[0, 0]) / period
    columns, rows = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    grid = rng.random_sample((int(rows[-1]) + 2, int(columns[-1]) + 2))
    down = smoothstep(v - rows)[:, None]
    across = smoothstep(u - columns)
    lines = grid[rows] + down * (grid[rows + 1] - grid[rows])
    noise: Floats = lines[:, columns] + across * (lines[:, columns + 1] - lines[:, columns])
    return noise


def _wave(along: Floats) -> Floats:
    """Stripes in [0, 1] of period 1: a triangle wave, steepened."""
    return clamp(2.5 * np.abs(2.0 * (along - np.floor(along)) - 1.0) - 0.75)


def stripes(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    return _wave((c / period) * x + ((s / period) * y + uniform(rng, 0.0, 1.0)))


def checker(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    first = _wave((c / period) * x + (s / period) * y)
    second = _wave((c / period) * y - (s / period) * x)
    return 0.5 + 0.5 * (2.0 * first - 1.0) * (2.0 * second - 1.0)


def contrasting(rng: RandomState, under: Color, contrast: float) -> Color:
    """Draw a color that differs by about ``contrast`` or more in one channel, anyhow in the others."""
    lead = pick(rng, 3)
    # towards the side of the leading channel that has more room, so that the clamp seldom eats the contrast
    up = uniform(rng, 0.0, 1.0) < 1.5 - 2.0 * under[lead]
    signed = contrast if up else -contrast
    factors = [uniform(rng, -0.4, 1.4) for _ in under]
    factors[lead] = uniform(rng, 1.0, 1.6)
    raised = (value + signed * factor for value, factor in zip(under, factors, strict=True))
    return tuple(min(max(value, 0.0), 1.0) for value in raised)


def tinted(rng: RandomState, category: int, under: Color) -> tuple[Color, float]:
    """Draw a surface's color, between what lies under it and the tint of its class, and their contrast."""
    share = uniform(rng, *TINT_SHARE)
    color = tuple(
        min(max(share * tint * uniform(rng, 0.8, 1.2) + (1.0 - share) * value, 0.0), 1.0)
        for tint, value in zip(TINTS[category], under, strict=True)
    )
    return color, 0.5 * share


def textured(rng: RandomState, scale: float, window: Window, base: Color, contrast: float) -> Floats:
    """Colors ``(h, w, 3)`` of a surface: flat (a quarter), stripes, checker or blotches about ``base``."""
    kind = pick(rng, 4)
    period = log_uniform(rng, 3.0, 14.0) * scale
    strength = contrast * uniform(rng, 0.3, 0.8)
    first: Floats = np.array(base)
    if kind == 3:
        return first
    second: Floats = np.array(contrasting(rng, base, strength))
    pattern = (stripes, checker, value_noise)[kind](rng, window.x, window.y, period)
    color: Floats = first + pattern[:, :, None] * (second - first)
    return color


def background(rng: RandomState, width: int, height: int, scale: float) -> Floats:
    """A gradient and two scales of value noise about a muted color, ``(H, W, 3)``."""
    window = Window(top=0, bottom=height, left=0, right=width)
    gray = uniform(rng, 0.25, 0.75)
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    gradient = (c / width) * window.x + (s / height) * window.y - 0.5 * (c + s)
    coarse = value_noise(rng, window.x, window.y, log_uniform(rng, 18.0, 50.0) * scale) - 0.5
    fine = value_noise(rng, window.x, window.y, log_uniform(rng, 3.0, 9.0) * scale) - 0.5
    strengths = (uniform(rng, 0.0, 0.3), uniform(rng, 0.08, 0.4), uniform(rng, 0.02, 0.16))
    canvas = np.empty((height, width, 3))
    for channel in range(3):
        a, b, d = (strength * uniform(rng, 0.5, 1.2) for strength in strengths)
        canvas[:, :, channel] = gray + uniform(rng, -0.15, 0.15) + a * gradient + b * coarse + d * fine
    return clamp(canvas)
