"""How finely logits are stored, and weights; ``pipeline/codec/README.md`` says why.

A weight of the valuable region is a true IoU, in [0, 1]; code 0 is outside the region. Every way to code them
has ``formula``, the decoder in words; ``quantize`` and ``dequantize``; ``max_error``, how far stored weights
may lie from exact ones; and, unless exact, ``step_exponents``, ``k = round(1 - log2(weight))`` but at most
``largest``, by integers alone, so that no machine's ``log2`` matters, with ``exponent_formula``. All work on
``(P,)``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.codec.logits import require_finite
from pipeline.core.config import MAX_NUMBER, Positive, Section
from pipeline.core.errors import ConfigError

CODES_PER_OCTAVE = 128  # a weight is off by 0.27 % at most
FLOAT_SLACK = 1e-5  # relative: regions that another machine finds differ in last bits

Weights = NDArray[np.floating]
Codes = NDArray[np.integer]


@dataclass(frozen=True)
class LogarithmicWeights:
    """``weight = 2**-((code - 1) / 128)``: of quantized stores from format 3 on."""

    formula = f"valuable_weight = 0 where weight_code = 0, else 2**(-(weight_code - 1) / {CODES_PER_OCTAVE})."
    exponent_formula = f"floor(1.5 + (weight_code - 1) / {CODES_PER_OCTAVE})"

    def quantize(self, weights: Weights) -> NDArray[np.int32]:
        """``code = rint(-128 * log2(weight)) + 1``; a ``ValueError`` for a weight outside [0, 1]."""
        # In float64, where no float32 is so near to a limit that another machine's logarithm tips a code.
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

    def quantize(self, weights: Weights) -> NDArray[np.int32]:
        return (_require_weights(weights) + 0.0).astype(np.float32).view(np.int32)

    def dequantize(self, codes: Codes) -> NDArray[np.float32]:
        return codes.astype(np.int32).view(np.float32)

    def max_error(self, weights: Weights) -> NDArray[np.float64]:
        return weights.astype(np.float64) * FLOAT_SLACK


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


def _require_weights(weights: Weights) -> NDArray[np.float64]:
    require_finite("weights", weights)
    if np.any((weights < 0) | (weights > 1)):
        raise ValueError(f"expected weights in [0, 1], but got {weights.min()}..{weights.max()}")
    return weights.astype(np.float64)


class Precision(Section, frozen=True, kw_only=True):
    """The quantizer's steps, in logits; no step at all means float32 as it is."""

    edge_step: Positive | None
    """Step of the edge logits' cosine transform at a main-region point."""
    cls_step: Positive | None
    """Step of the class logits; null exactly when ``edge_step`` is."""
    max_step_factor: Annotated[float, Meta(ge=1, le=MAX_NUMBER)] = 8.0
    """Largest factor by which a low weight may coarsen ``edge_step``."""

    def __post_init__(self) -> None:
        if (self.edge_step is None) != (self.cls_step is None):
            raise ConfigError(
                "expected edge_step and cls_step as two numbers (quantized) or both null (lossless), "
                f"but got {self.edge_step!r} and {self.cls_step!r}"
            )

    @property
    def lossless(self) -> bool:
        return self.edge_step is None

    @property
    def max_step_exponent(self) -> int:
        """The largest ``k`` with ``2**(k/2) <= max_step_factor``; ``frexp`` is exact, a logarithm is not."""
        return math.frexp(self.max_step_factor**2)[1] - 1

    def weight_code(self, format_version: int) -> WeightCode:
        """How a store of a format holds its weights."""
        if format_version <= 2:
            return LinearWeights(2**24 if self.lossless else 2**10 - 1)
        return ExactWeights() if self.lossless else LogarithmicWeights()

    def edge_steps(
        self, weights: WeightCode, codes: Codes, main_region: NDArray[np.bool_]
    ) -> NDArray[np.float32] | None:
        """The step (P,) of each point's edge logits, ``None`` if lossless: the less it weighs, the coarser.

        ``edge_step`` in the main region, whose weights are the student's; else ``edge_step * 2**(k/2)`` with
        the ``k`` of the weight's integer code: a step of ``1 / sqrt(w)`` is the optimum of bits and error,
        and a valuable point counts half its weight.
        """
        if self.edge_step is None or isinstance(weights, ExactWeights):
            return None
        largest = self.max_step_exponent
        exponents = np.where(main_region, 0, weights.step_exponents(codes, largest))
        # ``sqrt`` is exactly rounded everywhere, ``pow`` is not.
        factors = [2.0 ** (k // 2) * (math.sqrt(2.0) if k % 2 else 1.0) for k in range(largest + 1)]
        return np.array([self.edge_step * factor for factor in factors], dtype=np.float32)[exponents]

    def formula(self, weights: WeightCode) -> str:
        """How to turn the stored numbers into values, in words."""
        if self.lossless or isinstance(weights, ExactWeights):
            return f"{weights.formula} edge_codes and cls_codes are float32 logits as they are."
        return (
            f"{weights.formula} cls_logit = cls_code * {self.cls_step}. "
            "edge_logit[i] = sum over j = 1..bins-1 of (edge_code[j-1] - 128) * step * sqrt(2/bins) * "
            "cos(pi*j*(2*i+1)/(2*bins)), up to a constant per edge, which softmax ignores. "
            f"step = {self.edge_step} where main_gt >= 0, else {self.edge_step} * 2**(k/2), "
            f"k = {weights.exponent_formula}, but at most {self.max_step_exponent}."
        )

    def to_json(self) -> dict[str, float | None]:
        """In the words of stores and fingerprints."""
        factor = self.max_step_factor
        return {"edge_step": self.edge_step, "edge_step_cap": factor, "cls_step": self.cls_step}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Precision":
        """Inverse of ``to_json``."""
        steps = {"edge_step": document["edge_step"], "cls_step": document["cls_step"]}
        return cls(**steps, max_step_factor=document["edge_step_cap"])
