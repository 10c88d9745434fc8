"""What a reader gives: one view with its codes, and as any training loop takes it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import BOX_UNITS
from pipeline.codec.logits import dequantize_classes, dequantize_edges
from pipeline.views.conventions import Preprocessing
from pipeline.views.geometry import scale_factors
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, SoftTargets


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredDense:
    """The teacher at all ``n`` positions of one view, level after level."""

    classes: NDArray[np.uint8] | NDArray[np.float32]
    """(n, C) codes; logits if lossless."""
    distances: NDArray[np.uint16] | NDArray[np.float32]
    """(n, 4) in 1/32 stride; in strides if lossless."""
    scores: NDArray[np.float32] | None
    """Score of each class code, ``scores[classes]`` those of the view; ``None`` if lossless."""

    def edge_distances(self) -> NDArray[np.float32]:
        """(n, 4) distances from the point to the box's edges l, t, r, b, strides."""
        unit = 1 if self.scores is None else BOX_UNITS
        return np.asarray(self.distances / np.float32(unit), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredView:
    """One view as it is read: integer codes, to be dequantized here or on a device; logits if lossless."""

    view: LabeledView
    """With its weights dequantized."""
    edge_codes: NDArray[np.int16] | NDArray[np.float32]
    """(P, 4 * (bins - 1)); (P, 4 * bins) if lossless."""
    edge_steps: NDArray[np.float32] | None
    """(P,), of ``dequantize_edges``; ``None`` if lossless."""
    cls_codes: NDArray[np.int16] | NDArray[np.float32]
    """(M, C), or (P, C) with ``valuable_classes``."""
    cls_step: float | None
    """``cls_logit = cls_code * cls_step``; ``None`` if lossless."""

    def soft_targets(self) -> SoftTargets:
        """What the teacher's own outputs would be; edge logits up to a constant per edge, unless lossless."""
        classes = dequantize_classes(self.cls_codes, self.cls_step)
        return SoftTargets(edge_logits=self.edge_logits(), cls_logits=classes)

    def edge_logits(self) -> NDArray[np.float32]:
        """(P, 4, bins)."""
        return dequantize_edges(self.edge_codes, self.edge_steps)

    def cls_logits(self) -> NDArray[np.float32]:
        """(M, C), at the main region."""
        return self.view.points.at_main(dequantize_classes(self.cls_codes, self.cls_step))


class DecodedView:
    """A view with ``P`` kept points, ``M`` of them in the main region, and ``G`` boxes.

    Coordinates are px of the resized and flipped image: pixel ``i`` reaches from ``i`` to ``i + 1``.
    """

    def __init__(self, stored: StoredView, pyramid: Pyramid, preprocessing: Preprocessing) -> None:
        view, points = stored.view, stored.view.points
        self.stored = stored
        """The same with integer codes."""
        self.pyramid, self.preprocessing = pyramid, preprocessing
        """Strides of the levels; ``mean``, ``std``, ``color`` (order of the channels), ``fit``, ``fill``."""
        self.key, self.geometry = view.key, view.geometry
        """``original_hw``, ``resized_hw`` and ``padded_hw``, each ``(height, width)`` px, and ``flip``."""
        self.level, self.position = points.level, points.position
        """``(P,)``: level, from the finest; row-major cell in its grid over ``geometry.padded_hw``."""
        self.main = points.main_gt
        """``(P,)``: row of the object in ``boxes`` whose positive the point is (ATSS), or -1."""
        self.valuable_weight = points.valuable_weight
        """``(P,)`` in [0, 1]: weight in the valuable localization region, 0 outside it."""
        self.boxes, self.labels = view.boxes_xyxy, view.labels
        """Ground truth: ``(G, 4)`` px ``(x1, y1, x2, y2)``; ``(G,)`` rows of the store's ``classes``."""
        self._grid = pyramid.grid(view.geometry.padded_hw)
        self._cells = self._grid.flatten(points.level, points.position)

    @property
    def points_xy(self) -> NDArray[np.float32]:
        """``(P, 2)`` px."""
        return self._grid.points[self._cells]

    @property
    def stride(self) -> NDArray[np.float32]:
        """``(P,)`` px: a distance of 1 bin."""
        return self._grid.point_strides[self._cells]

    @cached_property
    def edge_logits(self) -> NDArray[np.float32]:
        """``(P, 4, bins)``: left, top, right, bottom; up to a constant per edge unless lossless."""
        return self.stored.edge_logits()

    @cached_property
    def cls_logits(self) -> NDArray[np.float32]:
        """``(M, classes)`` before the sigmoid, at the points where ``main >= 0``, in their order."""
        return self.stored.cls_logits()

    @property
    def image_to_view(self) -> NDArray[np.float64]:
        """``(2, 3)``: ``A`` with ``(x, y)`` of the view ``= A @ (x, y, 1)`` of the upright original, px.

        Of corners of pixels, as boxes are; ``cv2.warpAffine`` counts from their centers.
        """
        top, left = self.geometry.content_top_left
        horizontal, vertical = scale_factors(self.geometry)[:2].tolist()
        if self.geometry.flip:
            horizontal, left = -horizontal, self.geometry.resized_hw[1] - left
        return np.array([[horizontal, 0, left], [0, vertical, top]])
