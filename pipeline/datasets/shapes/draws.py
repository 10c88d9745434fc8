"""What all drawing shares: types, random numbers that are the same on every machine, curves."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Point = tuple[float, float]
Color = tuple[float, float, float]
Range = tuple[float, float]


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
