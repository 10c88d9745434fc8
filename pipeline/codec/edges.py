"""Edge logits (the box distributions' logits) as unsigned bytes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.finite import require_finite

EDGES = 4
LARGEST_EDGE_CODE = 255


class QuantizedEdges(NamedTuple):
    """Codes (P, 4 * bins) uint8 (lossless: float32), and how many of them saturated."""

    codes: NDArray[np.uint8] | NDArray[np.float32]
    clipped: int


def quantize_edges(edge_logits: NDArray[np.float32], steps: NDArray[np.float32] | None) -> QuantizedEdges:
    """``code = min(rint((max_over_bins - logit) / step), 255)``.

    Softmax ignores a constant per edge, so that only the depth below the edge's largest logit is stored;
    the bins that matter most get the smallest codes, and only the least likely bins can saturate.

    Args:
        edge_logits: (P, 4, bins), in the order l, t, r, b.
        steps: (P,) in logits, or ``None`` to keep the float32 logits as they are.

    Raises:
        ValueError: A logit is not finite.
    """
    require_finite("edge logits", edge_logits)
    flat = (len(edge_logits), EDGES * edge_logits.shape[-1])
    if steps is None:
        return QuantizedEdges(edge_logits.astype(np.float32).reshape(flat), 0)
    depth = edge_logits.max(axis=-1, keepdims=True) - edge_logits
    codes = np.rint(depth / steps[:, None, None]).reshape(flat)
    clipped = int(np.count_nonzero(codes > LARGEST_EDGE_CODE))
    return QuantizedEdges(np.minimum(codes, LARGEST_EDGE_CODE).astype(np.uint8), clipped)


def dequantize_edges(
    codes: NDArray[np.uint8] | NDArray[np.float32], steps: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """``logit = -code * step`` (up to a constant per edge); float32 codes as they are.

    Args:
        codes: (P, 4 * bins).
        steps: (P,) in logits, or ``None`` if the codes are lossless.

    Returns:
        (P, 4, bins) float32.
    """
    logits = codes.astype(np.float32)
    if steps is not None:
        logits = -logits * steps[:, None]
    return logits.reshape(len(codes), EDGES, codes.shape[1] // EDGES)
