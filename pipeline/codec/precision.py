"""How finely logits and weights are stored."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pipeline.core.errors import ConfigError

QUANTIZED_WEIGHT_SCALE = 2**10 - 1
"""Codes per unit of weight when quantized: an IoU to 5e-4, which adds 0.2 % to the gradient where the logits'
quantizer adds 2 %, and takes half the bytes of 16 bits."""
LOSSLESS_WEIGHT_SCALE = 2**24
"""Codes per unit of weight when lossless: the spacing of float32 just below 1."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The quantizer's steps, in logits; no step at all means float32 as it is.

    Attributes:
        edge_step: Step of the edge logits' cosine transform at a main-region point, or ``None``.
        edge_step_cap: Largest factor (>= 1) by which a low weight may coarsen ``edge_step``.
        cls_step: Step of the class logits, or ``None``; ``None`` exactly when ``edge_step`` is.

    Raises:
        ConfigError: A step is not positive, the cap is below 1, or only one step is ``None``.
    """

    edge_step: float | None
    edge_step_cap: float
    cls_step: float | None

    def __post_init__(self) -> None:
        if (self.edge_step is None) != (self.cls_step is None):
            raise ConfigError(
                "precision: edge_step and cls_step must be both numbers (quantized) or both null (lossless), "
                f"but got edge_step={self.edge_step!r}, cls_step={self.cls_step!r}"
            )
        for name in ("edge_step", "cls_step"):
            value = getattr(self, name)
            if value is not None and not _is_number_from(value, 0.0, inclusive=False):
                raise ConfigError(f"precision: expected {name} > 0, but got {value!r}")
        if not _is_number_from(self.edge_step_cap, 1.0, inclusive=True):
            raise ConfigError(f"precision: expected edge_step_cap >= 1, but got {self.edge_step_cap!r}")

    @property
    def lossless(self) -> bool:
        return self.edge_step is None

    @property
    def weight_scale(self) -> int:
        """Integer code of a weight of 1."""
        return LOSSLESS_WEIGHT_SCALE if self.lossless else QUANTIZED_WEIGHT_SCALE

    @property
    def formula(self) -> str:
        """How to turn the stored numbers into values, in words, for a reader without this code."""
        weights = f"valuable_weight = weight_code / {self.weight_scale}."
        if self.lossless:
            return f"{weights} edge_codes and cls_codes are float32 logits as they are."
        return (
            f"{weights} cls_logit = cls_code * {self.cls_step}. "
            "edge_logit[i] = sum over j = 1..bins-1 of (edge_code[j-1] - 128) * step * sqrt(2/bins) * "
            "cos(pi*j*(2*i+1)/(2*bins)), up to a constant per edge, which softmax ignores. "
            f"step = {self.edge_step} where main_gt >= 0, else {self.edge_step} * 2**(k/2), "
            f"k = round(1 - log2(valuable_weight)) limited so that 2**(k/2) <= {self.edge_step_cap}."
        )

    def to_json(self) -> dict[str, float | None]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Precision":
        """Inverse of ``to_json``.

        Raises:
            ConfigError: A key is missing or unknown, or a value is out of range.
        """
        expected = {field.name for field in fields(cls)}
        if set(document) != expected:
            raise ConfigError(f"precision: expected the keys {sorted(expected)}, but got {sorted(document)}")
        return cls(**{name: document[name] for name in expected})


def _is_number_from(value: object, least: float, *, inclusive: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value >= least if inclusive else value > least
