"""How finely logits and weights are stored."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.codec.weights import ExactWeights, LinearWeights, LogarithmicWeights, WeightCode
from pipeline.core.config import MAX_NUMBER, Positive, Section, structure
from pipeline.core.errors import ConfigError

LINEAR_WEIGHT_SCALES = {False: 2**10 - 1, True: 2**24}
"""Codes per unit of weight in format 2, of quantized and of lossless stores."""

LAST_FORMAT_OF_LINEAR_WEIGHTS = 2


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
        if format_version <= LAST_FORMAT_OF_LINEAR_WEIGHTS:
            return LinearWeights(LINEAR_WEIGHT_SCALES[self.lossless])
        return ExactWeights() if self.lossless else LogarithmicWeights()

    def edge_steps(
        self, weights: WeightCode, codes: NDArray[np.integer], main_region: NDArray[np.bool_]
    ) -> NDArray[np.float32] | None:
        """The step (P,) of each point's edge logits, ``None`` if lossless: the less it weighs, the coarser.

        ``edge_step`` in the main region, which LD weighs with the student's score, unknown when the store is
        written; else ``edge_step * 2**(k/2)`` with a ``k`` from the weight's code. The error that a point
        brings into the loss is proportional to its weight ``w`` and grows with the square of its step, its
        bits with ``-log2(step)``: the sum of errors at a given number of bits is least where ``w * step**2``
        is equal everywhere, ``step ~ 1 / sqrt(w)``. In the LD loss a valuable point weighs a quarter of its
        VLR weight and a main-region point the student's score, about a half where it matters, so that a VLR
        weight counts half. Writer and reader derive the step from the *integer* code by integer comparisons,
        so that no machine's ``log2`` can make them disagree.

        Args:
            weights: Gives ``k``.
            codes: (P,) of the weights.
            main_region: (P,) true where the point is in the main region.
        """
        if self.edge_step is None:
            return None
        largest = self.max_step_exponent
        exponents = np.where(main_region, 0, weights.step_exponents(codes, largest))
        # ``sqrt`` is exactly rounded everywhere, ``pow`` is not.
        factors = [2.0 ** (k // 2) * (math.sqrt(2.0) if k % 2 else 1.0) for k in range(largest + 1)]
        return np.array([self.edge_step * factor for factor in factors], dtype=np.float32)[exponents]

    def formula(self, weights: WeightCode) -> str:
        """How to turn the stored numbers into values, in words, for a reader without this code."""
        if self.lossless:
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
        steps = {"edge_step": self.edge_step, "edge_step_cap": self.max_step_factor}
        return {**steps, "cls_step": self.cls_step}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Precision":
        """Inverse of ``to_json``; a ``ConfigError`` if a key is missing, unknown, or out of range."""
        if "edge_step_cap" not in document:
            raise ConfigError("precision: missing key 'edge_step_cap'")
        section = {"max_step_factor" if k == "edge_step_cap" else k: v for k, v in document.items()}
        return structure(cls, section, "precision")
