"""Class logits as 16-bit integers."""

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.integers import Quantized, require_finite, saturate


def quantize_classes(cls_logits: NDArray[np.float32], step: float | None) -> Quantized:
    """``code = rint(logit / step)``, (M, C), limited to +-32767.

    Absolute, unlike the edge codes: a sigmoid loss needs the logit itself, a softmax loss its differences.

    Args:
        cls_logits: (M, C).
        step: In logits, or ``None`` to keep the float32 logits as they are.

    Raises:
        ValueError: A logit is not finite.
    """
    require_finite("class logits", cls_logits)
    if step is None:
        return Quantized(cls_logits.astype(np.float32), 0)
    return saturate(np.rint(cls_logits / np.float32(step)))


def dequantize_classes(
    codes: NDArray[np.int16] | NDArray[np.float32], step: float | None
) -> NDArray[np.float32]:
    """``logit = code * step``, (M, C) float32; float32 codes as they are."""
    logits = codes.astype(np.float32)
    return logits if step is None else logits * np.float32(step)
