"""A teacher at *every* point of a view: class scores as graded codes of a byte, boxes in 1/32 stride.

A class code is a step of log-odds, fine where a class is likely. Below the *floor* all is code 0, which
stands for the mean of all log-odds there (the tail). Boxes are distances to their four edges, each as the
difference from the point before it.
"""

import math
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.core.config import Section
from pipeline.core.errors import ConfigError

STEPS = ((0.01, 0.8), (0.02, 0.4), (0.1, 0.2), (1.0, 0.1))  # up to which score, and the step of log-odds
HIGHEST_LOG_ODDS = 12.0  # beyond it a score is 1 to within 6e-6
MAX_CODES = 255
BOX_UNITS = 32  # in a stride
CODE_OF_NO_DIFFERENCE = 128  # with it nearly all high bytes are zeros, as those of the edge codes
TAIL_UNIT = 2**10  # sums of log-odds are of whole 1/1024, so that they do not depend on an order
TAIL_LIMIT = 100.0  # log-odds below -100 count as that in the tail: a score of 4e-44

Distances = NDArray[np.uint16] | NDArray[np.float32]


class DensePrecision(Section, frozen=True, kw_only=True):
    """How the teacher is stored at every point of a view."""

    floor: Annotated[float, Meta(ge=0, lt=0.5)] = 0.005
    """Scores below it are not told apart; 0 for float32 logits and distances as they are."""

    def __post_init__(self) -> None:
        if not self.lossless and len(self.log_odds) > MAX_CODES:
            raise ConfigError(
                f"floor: expected a score whose log-odds fit {MAX_CODES} codes, but got {self.floor}, "
                f"which takes {len(self.log_odds)}; 0 is lossless"
            )

    @property
    def lossless(self) -> bool:
        return self.floor == 0

    @property
    def log_odds(self) -> NDArray[np.float64]:
        """Log-odds that the codes 1, 2, ... stand for, ascending from the floor."""
        values = [_logit(self.floor)]
        while values[-1] < HIGHEST_LOG_ODDS:
            values.append(values[-1] + next(s for p, s in STEPS if p == 1 or values[-1] < _logit(p)))
        return np.array(values)

    @property
    def edges(self) -> NDArray[np.float32]:
        """The code of a class logit is the number of these that are not above it."""
        levels = self.log_odds
        return np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2]).astype(np.float32)

    def scores(self, tail_log_odds: float) -> NDArray[np.float32]:
        """Scores of the codes 0, 1, ...: what a reader looks up."""
        log_odds = np.concatenate([[tail_log_odds], self.log_odds])
        return np.asarray(1 / (1 + np.exp(-log_odds)), np.float32)

    @property
    def formula(self) -> str:
        """How to turn the stored numbers into values, in words."""
        if self.lossless:
            return "dense/cls_codes are float32 logits, dense/box_codes float32 distances in strides."
        steps = ", ".join(f"{step} below {score}" for score, step in STEPS[:-1])
        return (
            f"dense class logit = statistics.dense.tail_log_odds where code = 0, log({self.floor} / (1 - "
            f"{self.floor})) where code = 1; that of every next code is higher by ({steps}, {STEPS[-1][1]} "
            "otherwise: of the score of the one before). dense distance in strides = "
            f"(sum of (code - {CODE_OF_NO_DIFFERENCE}) over the view's rows up to this one) / {BOX_UNITS}. A "
            "view's rows are all positions of its own grid, level after level, row-major; views follow one "
            "another in a partition, which begins with a shard."
        )


def _logit(score: float) -> float:
    return math.log(score / (1 - score))


def encode_boxes(distances: Distances) -> Distances:
    """Differences along a view's points, (n, 4), which wrap around; float32 as it is."""
    if distances.dtype == np.float32:
        return distances
    return np.diff(distances, axis=0, prepend=np.uint16(0)) + np.uint16(CODE_OF_NO_DIFFERENCE)


def decode_boxes(codes: Distances) -> Distances:
    """Inverse of :func:`encode_boxes`: distances (n, 4) in units of 1/32 stride."""
    if codes.dtype == np.float32:
        return codes
    return np.cumsum(codes - np.uint16(CODE_OF_NO_DIFFERENCE), axis=0, dtype=np.uint16)
