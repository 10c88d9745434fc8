"""Class logits as 16-bit integers, and edge logits as such codes of their cosine transform over the bins.

The transform (DCT-II) takes a quarter fewer bytes at the same error; it is orthonormal, so that a rounding
error is as large in the logits as in the coefficients. Its constant, to which softmax is blind, is left out.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EDGES = 4
CODE_OF_ZERO = 128  # of a coefficient: nearly all high bytes, which are compressed apart, are zeros
MAX_CODE = 2**15 - 1


class Quantized(NamedTuple):
    """Codes of logits (lossless: the float32 logits themselves), and how many of them saturated."""

    codes: NDArray[np.int16] | NDArray[np.float32]
    clipped: int


@cache
def cosine_basis(bins: int) -> NDArray[np.float64]:
    """Rows 1..bins-1 of the orthonormal DCT-II, (bins - 1, bins); row 0, the constant, is left out.

    ``basis[k - 1, i] = sqrt(2 / bins) * cos(pi * k * (2 * i + 1) / (2 * bins))``
    """
    k, i = np.arange(1, bins)[:, None], np.arange(bins)[None]
    basis = np.sqrt(2 / bins) * np.cos(np.pi * k * (2 * i + 1) / (2 * bins))
    basis.flags.writeable = False
    return np.asarray(basis, np.float64)


def edge_columns(bins: int, *, lossless: bool) -> int:
    """Columns of a point's codes."""
    return EDGES * (bins if lossless else bins - 1)


def quantize_edges(edge_logits: NDArray[np.float32], steps: NDArray[np.float32] | None) -> Quantized:
    """``code = rint((logits @ basis.T) / step) + 128``, (P, 4 * (bins - 1)), see ``cosine_basis``.

    Args:
        edge_logits: (P, 4, bins), in the order l, t, r, b; a ``ValueError`` if one is not finite.
        steps: (P,) in logits, or ``None`` to keep the float32 logits as they are, (P, 4 * bins).
    """
    require_finite("edge logits", edge_logits)
    points, _, bins = edge_logits.shape
    if steps is None:
        return Quantized(edge_logits.astype(np.float32).reshape(points, EDGES * bins), 0)
    # In float64, where another machine's order of summation does not tip a code.
    coefficients = edge_logits.astype(np.float64) @ cosine_basis(bins).T
    codes = np.rint(coefficients / steps[:, None, None]) + CODE_OF_ZERO
    return _saturate(codes.reshape(points, EDGES * (bins - 1)))


def dequantize_edges(
    codes: NDArray[np.int16] | NDArray[np.float32], steps: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """``logits = ((code - 128) * step) @ basis``, (P, 4, bins), up to a constant per edge.

    Args:
        codes: (P, 4 * (bins - 1)), or (P, 4 * bins) float32 logits if lossless.
        steps: (P,) in logits, or ``None`` if the codes are lossless.
    """
    values = codes.reshape(len(codes), EDGES, codes.shape[1] // EDGES).astype(np.float32)
    if steps is None:
        return values
    coefficients = (values - CODE_OF_ZERO) * steps[:, None, None]
    return coefficients @ cosine_basis(values.shape[-1] + 1).astype(np.float32)


def quantize_classes(cls_logits: NDArray[np.float32], step: float | None) -> Quantized:
    """``code = rint(logit / step)``, (M, C), or float32 as it is; a ``ValueError`` if one is not finite."""
    # Absolute, unlike the edge codes: a sigmoid loss needs the logit itself, a softmax loss its differences.
    require_finite("class logits", cls_logits)
    if step is None:
        return Quantized(cls_logits.astype(np.float32), 0)
    return _saturate(np.rint(cls_logits / np.float32(step)))


def dequantize_classes(
    codes: NDArray[np.int16] | NDArray[np.float32], step: float | None
) -> NDArray[np.float32]:
    """``logit = code * step``, (M, C) float32; float32 codes as they are."""
    logits = codes.astype(np.float32)
    return logits if step is None else logits * np.float32(step)


def _saturate(codes: NDArray[np.floating]) -> Quantized:
    """Whole numbers of any size, limited to +-32767."""
    clipped = int(np.count_nonzero(np.abs(codes) > MAX_CODE))
    return Quantized(np.clip(codes, -MAX_CODE, MAX_CODE).astype(np.int16), clipped)


def require_finite(name: str, values: NDArray[np.floating]) -> None:
    """Refuse NaN and infinity by a ``ValueError``: as codes they would look like ordinary values."""
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise ValueError(f"expected finite {name}, but {bad} of {values.size} values are NaN or infinite")
