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
from pipeline.codec.weights import WeightCode


def edge_steps(
    precision: Precision, weights: WeightCode, codes: NDArray[np.integer], main_region: NDArray[np.bool_]
) -> NDArray[np.float32] | None:
    """The step of each point: ``edge_step`` in the main region, else ``edge_step * 2**(k/2)``.

    A main-region point keeps the finest step whatever its weight code says, because LD weighs it with the
    student's own score, which is unknown when the store is written.

    Args:
        precision: Steps and cap.
        weights: Gives ``k``.
        codes: (P,) of the weights.
        main_region: (P,) true where the point is in the main region.

    Returns:
        (P,) float32 steps in logits, or ``None`` if the precision is lossless.
    """
    if precision.edge_step is None:
        return None
    largest = precision.max_step_exponent
    exponents = np.where(main_region, 0, weights.step_exponents(codes, largest))
    return _step_table(precision.edge_step, largest)[exponents]


@cache
def _step_table(edge_step: float, largest: int) -> NDArray[np.float32]:
    """``edge_step * 2**(k/2)`` for k = 0..largest; ``sqrt`` is exactly rounded everywhere, ``pow`` is not."""
    factors = [2.0 ** (k // 2) * (math.sqrt(2.0) if k % 2 else 1.0) for k in range(largest + 1)]
    return np.array([edge_step * factor for factor in factors], dtype=np.float32)
