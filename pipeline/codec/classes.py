"""Class logits as 16-bit integers."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.finite import require_finite

LARGEST_CLS_CODE = 2**15 - 1


class QuantizedClasses(NamedTuple):
    """Codes (M, C) int16 (lossless: float32), and how many of them saturated."""

    codes: NDArray[np.int16] | NDArray[np.float32]
    clipped: int


def quantize_classes(cls_logits: NDArray[np.float32], step: float | None) -> QuantizedClasses:
    """``code = rint(logit / step)``, limited to +-32767.

    Absolute, unlike the edge codes: a sigmoid loss needs the logit itself, a softmax loss its differences.

    Args:
        cls_logits: (M, C).
        step: In logits, or ``None`` to keep the float32 logits as they are.

    Raises:
        ValueError: A logit is not finite.
    """
    require_finite("class logits", cls_logits)
    if step is None:
        return QuantizedClasses(cls_logits.astype(np.float32), 0)
    codes = np.rint(cls_logits / np.float32(step))
    clipped = int(np.count_nonzero(np.abs(codes) > LARGEST_CLS_CODE))
    return QuantizedClasses(np.clip(codes, -LARGEST_CLS_CODE, LARGEST_CLS_CODE).astype(np.int16), clipped)


def dequantize_classes(
    codes: NDArray[np.int16] | NDArray[np.float32], step: float | None
) -> NDArray[np.float32]:
    """``logit = code * step``, (M, C) float32; float32 codes as they are."""
    logits = codes.astype(np.float32)
    return logits if step is None else logits * np.float32(step)
