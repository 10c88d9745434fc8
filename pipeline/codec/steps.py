"""The step of each point's edge logits: the less a point weighs in the loss, the coarser.

The error that a point brings into the LD loss is proportional to its weight ``w`` and grows with the
square of its step, while its bits grow with ``-log2(step)``. Minimising the sum of errors at a given
number of bits makes ``w * step**2`` equal everywhere: ``step ~ 1 / sqrt(w)``. In the LD loss a valuable
point weighs a quarter of its VLR weight, and a main-region point the student's score, which is about a half
where it matters: relative to the main region a valuable point counts half its VLR weight. Rounded to powers
of ``sqrt(2)``, a step is one small integer ``k``, which both the writer and the reader derive from the
*integer* weight code by integer comparisons, so that no machine's ``log2`` can make them disagree.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.precision import Precision


def step_exponents(precision: Precision, weight_codes: NDArray[np.integer]) -> NDArray[np.int64]:
    """``k = round(-log2(weight / 2))`` limited to ``0..2*log2(max_step_factor)``.

    Args:
        precision: Gives the scale of the codes and the cap.
        weight_codes: (P,) as ``quantize_weights`` returns them.

    Returns:
        (P,) exponents ``k`` of ``sqrt(2)``.
    """
    thresholds = _code_thresholds(precision)
    below = np.searchsorted(thresholds, weight_codes, side="left")
    return (len(thresholds) - below).astype(np.int64)


def edge_steps(
    precision: Precision, weight_codes: NDArray[np.integer], main_region: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """The step of each point: ``edge_step`` in the main region, else ``edge_step * 2**(k/2)``.

    A main-region point keeps the finest step whatever its weight code says, because LD weighs it with the
    student's own score, which is unknown when the store is written.

    Args:
        precision: Steps and cap.
        weight_codes: (P,) as ``quantize_weights`` returns them.
        main_region: (P,) true where the point is in the main region.

    Returns:
        (P,) float32 steps in logits, or ``None`` if the precision is lossless.
    """
    if precision.edge_step is None:
        return None
    exponents = np.where(main_region, 0, step_exponents(precision, weight_codes))
    return _step_table(precision.edge_step, _largest_exponent(precision))[exponents]


def _largest_exponent(precision: Precision) -> int:
    """``floor(2 * log2(cap))``; ``frexp`` is exact where a logarithm may round up."""
    return math.frexp(precision.max_step_factor**2)[1] - 1


@cache
def _step_table(edge_step: float, largest: int) -> NDArray[np.float32]:
    """``edge_step * 2**(k/2)`` for k = 0..largest; ``sqrt`` is exactly rounded everywhere, ``pow`` is not."""
    factors = [2.0 ** (k // 2) * (math.sqrt(2.0) if k % 2 else 1.0) for k in range(largest + 1)]
    return np.array([edge_step * factor for factor in factors], dtype=np.float32)


@cache
def _code_thresholds(precision: Precision) -> NDArray[np.int64]:
    """Ascending codes ``T_j``, one per j = largest..1, with ``k >= j`` exactly when ``code <= T_j``.

    ``1 - log2(code / scale) >= j - 1/2`` means ``code**2 <= 8 * scale**2 / 4**j``: an integer square root.
    No tie is possible, because ``2**(3/2 - j)`` is irrational.
    """
    square = 8 * precision.weight_scale**2
    exponents = range(_largest_exponent(precision), 0, -1)
    return np.array([math.isqrt(square // 4**j) for j in exponents], dtype=np.int64)
