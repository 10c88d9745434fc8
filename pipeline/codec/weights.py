"""Weights of the valuable region (a true IoU, in [0, 1]) as integers; code 0 is outside the region.

An IoU spans decades: an anchor of stride 64 and an object of 5 px meet in 1e-4. A loss is moved by a weight's
*relative* error, so that the code is a logarithm, as precise for the smallest object as for the largest.

Every way to code them has the same parts: ``formula``, the decoder in words for a reader without this code;
``quantize`` and ``dequantize``; ``max_error``, how far the stored values may lie from exact weights; and
``step_exponents``, ``k = round(1 - log2(weight))`` of quantized weights, but at most ``largest``, by integers
alone, with ``exponent_formula``, the same in words. All work on ``(P,)``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.logits import require_finite

CODES_PER_OCTAVE = 128
"""A weight is off by 0.27 % at most, by 0.16 % on average, which is nothing beside the logits' 2 %; half as
many codes would save 3 % of the region's bytes."""

FLOAT_SLACK = 1e-5
"""Relative: regions that another machine finds differ in last bits."""

Weights = NDArray[np.floating]
Codes = NDArray[np.integer]


@dataclass(frozen=True)
class LogarithmicWeights:
    """``weight = 2**-((code - 1) / 128)``: of quantized stores from format 3 on."""

    formula = f"valuable_weight = 0 where weight_code = 0, else 2**(-(weight_code - 1) / {CODES_PER_OCTAVE})."
    exponent_formula = f"floor(1.5 + (weight_code - 1) / {CODES_PER_OCTAVE})"

    def quantize(self, weights: Weights) -> NDArray[np.int32]:
        """``code = rint(-128 * log2(weight)) + 1``; a ``ValueError`` for a weight outside [0, 1].

        In float64: no float32 lies so near to the limit between two codes that the last bit of another
        machine's logarithm would tip it.
        """
        exact = _require_weights(weights)
        octaves = -np.log2(np.where(exact > 0, exact, 1.0))
        return np.where(exact > 0, np.rint(octaves * CODES_PER_OCTAVE) + 1, 0).astype(np.int32)

    def dequantize(self, codes: Codes) -> NDArray[np.float32]:
        octave, part = np.divmod(np.maximum(codes, 1).astype(np.int64) - 1, CODES_PER_OCTAVE)
        weights = np.ldexp(np.exp2(-np.arange(CODES_PER_OCTAVE) / CODES_PER_OCTAVE)[part], -octave)
        return np.where(codes > 0, weights, 0).astype(np.float32)

    def max_error(self, weights: Weights) -> NDArray[np.float64]:
        half_code: float = 2 ** (0.5 / CODES_PER_OCTAVE) - 1
        return weights.astype(np.float64) * (half_code + FLOAT_SLACK)

    def step_exponents(self, codes: Codes, largest: int) -> NDArray[np.int64]:
        exponents = (codes.astype(np.int64) - 1 + 3 * CODES_PER_OCTAVE // 2) // CODES_PER_OCTAVE
        return np.minimum(exponents, largest)


@dataclass(frozen=True)
class ExactWeights:
    """The code is the bits of the float32, which ascend with it: of lossless stores from format 3 on."""

    formula = "valuable_weight = the float32 whose 32 bits, read as an integer, are weight_code."
    exponent_formula = ""

    def quantize(self, weights: Weights) -> NDArray[np.int32]:
        return (_require_weights(weights) + 0.0).astype(np.float32).view(np.int32)

    def dequantize(self, codes: Codes) -> NDArray[np.float32]:
        return codes.astype(np.int32).view(np.float32)

    def max_error(self, weights: Weights) -> NDArray[np.float64]:
        return weights.astype(np.float64) * FLOAT_SLACK

    def step_exponents(self, codes: Codes, largest: int) -> NDArray[np.int64]:
        raise AssertionError(f"expected no steps, but got {len(codes)} points (limit {largest})")


@dataclass(frozen=True)
class LinearWeights:
    """``weight = code / scale``, and 1 at least where the weight is positive: of format 2."""

    scale: int
    exponent_formula = "round(1 - log2(valuable_weight))"

    @property
    def formula(self) -> str:
        return f"valuable_weight = weight_code / {self.scale}."

    def quantize(self, weights: Weights) -> NDArray[np.int32]:
        exact = _require_weights(weights)
        return np.where(exact > 0, np.maximum(np.rint(exact * self.scale), 1), 0).astype(np.int32)

    def dequantize(self, codes: Codes) -> NDArray[np.float32]:
        return (codes / self.scale).astype(np.float32)

    def max_error(self, weights: Weights) -> NDArray[np.float64]:
        """Half a code; the smallest weights become 1."""
        exact = weights.astype(np.float64)
        return np.where(exact * self.scale < 0.5, 1 / self.scale, 0.5 / self.scale) + exact * FLOAT_SLACK

    def step_exponents(self, codes: Codes, largest: int) -> NDArray[np.int64]:
        """``1 - log2(code / scale) >= j - 1/2`` means ``code**2 <= 8 * scale**2 / 4**j``."""
        limits = np.array([8 * self.scale**2 // 4**j for j in range(largest, 0, -1)], np.int64)
        return largest - np.searchsorted(limits, codes.astype(np.int64) ** 2, side="left").astype(np.int64)


WeightCode = LogarithmicWeights | ExactWeights | LinearWeights
"""How a store holds weights."""


def _require_weights(weights: Weights) -> NDArray[np.float64]:
    require_finite("weights", weights)
    if np.any((weights < 0) | (weights > 1)):
        raise ValueError(f"expected weights in [0, 1], but got {weights.min()}..{weights.max()}")
    return weights.astype(np.float64)
