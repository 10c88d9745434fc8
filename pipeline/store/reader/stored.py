"""What a reader gives: one view with its codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.classes import dequantize_classes
from pipeline.codec.edges import dequantize_edges
from pipeline.views.types import LabeledView, SoftTargets


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """One view as it is read: integer codes, to be dequantized here or on a device.

    Attributes:
        view: The view, with its weights dequantized.
        edge_codes: (P, 4 * (bins - 1)) int16; (P, 4 * bins) float32 logits if the store is lossless.
        edge_steps: (P,) float32, the steps of ``dequantize_edges``; ``None`` if lossless.
        cls_codes: (M, C) int16; float32 logits if the store is lossless.
        cls_step: ``cls_logit = cls_code * cls_step``; ``None`` if lossless.
    """

    view: LabeledView
    edge_codes: NDArray[np.int16] | NDArray[np.float32]
    edge_steps: NDArray[np.float32] | None
    cls_codes: NDArray[np.int16] | NDArray[np.float32]
    cls_step: float | None

    def soft_targets(self) -> SoftTargets:
        """What the teacher's own outputs would be."""
        return SoftTargets(edge_logits=self.edge_logits(), cls_logits=self.cls_logits())

    def edge_logits(self) -> NDArray[np.float32]:
        """(P, 4, bins), up to a constant per edge unless lossless."""
        return dequantize_edges(self.edge_codes, self.edge_steps)

    def cls_logits(self) -> NDArray[np.float32]:
        """(M, C)."""
        return dequantize_classes(self.cls_codes, self.cls_step)
