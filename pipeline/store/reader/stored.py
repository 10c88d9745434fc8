"""What a reader gives: one view with its codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import BOX_UNITS
from pipeline.codec.logits import dequantize_classes, dequantize_edges
from pipeline.views.types import LabeledView, SoftTargets


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDense:
    """The teacher at all ``n`` positions of one view, level after level.

    Attributes:
        classes: (n, C) uint8 codes; float32 logits if lossless.
        distances: (n, 4) uint16 in 1/32 stride; float32 in strides if lossless.
        scores: Score of each class code; ``None`` if lossless.
    """

    classes: NDArray[np.uint8] | NDArray[np.float32]
    distances: NDArray[np.uint16] | NDArray[np.float32]
    scores: NDArray[np.float32] | None

    def class_scores(self) -> NDArray[np.float32]:
        """(n, C) scores."""
        scores = 1 / (1 + np.exp(-self.classes)) if self.scores is None else self.scores[self.classes]
        return np.asarray(scores, np.float32)

    def edge_distances(self) -> NDArray[np.float32]:
        """(n, 4) distances from the point to the box's edges l, t, r, b, strides."""
        unit = 1 if self.scores is None else BOX_UNITS
        return np.asarray(self.distances / np.float32(unit), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """One view as it is read: integer codes, to be dequantized here or on a device.

    Attributes:
        view: The view, with its weights dequantized.
        edge_codes: (P, 4 * (bins - 1)) int16; (P, 4 * bins) float32 logits if the store is lossless.
        edge_steps: (P,) float32, the steps of ``dequantize_edges``; ``None`` if lossless.
        cls_codes: (M, C) int16, or (P, C) with ``valuable_classes``; float32 logits if the store is lossless.
        cls_step: ``cls_logit = cls_code * cls_step``; ``None`` if lossless.
    """

    view: LabeledView
    edge_codes: NDArray[np.int16] | NDArray[np.float32]
    edge_steps: NDArray[np.float32] | None
    cls_codes: NDArray[np.int16] | NDArray[np.float32]
    cls_step: float | None

    def soft_targets(self) -> SoftTargets:
        """What the teacher's own outputs would be."""
        classes = dequantize_classes(self.cls_codes, self.cls_step)
        return SoftTargets(edge_logits=self.edge_logits(), cls_logits=classes)

    def edge_logits(self) -> NDArray[np.float32]:
        """(P, 4, bins), up to a constant per edge unless lossless."""
        return dequantize_edges(self.edge_codes, self.edge_steps)

    def cls_logits(self) -> NDArray[np.float32]:
        """(M, C), at the main region."""
        return self.view.points.at_main(dequantize_classes(self.cls_codes, self.cls_step))
