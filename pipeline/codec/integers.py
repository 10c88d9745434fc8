"""What the codecs share: a check of what they take, and the 16 bits of what they give."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_CODE = 2**15 - 1


class Quantized(NamedTuple):
    """Codes int16 of logits (lossless: the float32 logits themselves), and how many of them saturated."""

    codes: NDArray[np.int16] | NDArray[np.float32]
    clipped: int


def saturate(codes: NDArray[np.floating]) -> Quantized:
    """Whole numbers of any size, limited to +-32767."""
    clipped = int(np.count_nonzero(np.abs(codes) > MAX_CODE))
    return Quantized(np.clip(codes, -MAX_CODE, MAX_CODE).astype(np.int16), clipped)


def require_finite(name: str, values: NDArray[np.floating]) -> None:
    """Refuse NaN and infinity: as codes they would look like ordinary values.

    Raises:
        ValueError: Says how many values of ``name`` are not finite.
    """
    bad = values.size - int(np.count_nonzero(np.isfinite(values)))
    if bad:
        raise ValueError(f"expected finite {name}, but {bad} of {values.size} values are NaN or infinite")
