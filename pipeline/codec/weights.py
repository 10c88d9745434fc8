"""Weights of the valuable region (a true IoU, in [0, 1]) as integers."""

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.finite import require_finite


def quantize_weights(weights: NDArray[np.floating], scale: int) -> NDArray[np.int32]:
    """``code = rint(weight * scale)``, and at least 1 where the weight is positive.

    Code 0 means "not in the valuable region", so that a tiny positive weight must not round to it.

    Args:
        weights: (P,) in [0, 1].
        scale: Code of a weight of 1, see ``Precision.weight_scale``.

    Returns:
        (P,) codes in 0..scale.

    Raises:
        ValueError: A weight is not finite or lies outside [0, 1].
    """
    require_finite("weights", weights)
    if np.any((weights < 0) | (weights > 1)):
        raise ValueError(f"expected weights in [0, 1], but got {weights.min()}..{weights.max()}")
    codes = np.rint(weights.astype(np.float64) * scale).astype(np.int32)
    return np.where(weights > 0, np.maximum(codes, 1), 0).astype(np.int32)


def dequantize_weights(codes: NDArray[np.integer], scale: int) -> NDArray[np.float32]:
    """``weight = code / scale``, (P,) float32."""
    return (codes / scale).astype(np.float32)
