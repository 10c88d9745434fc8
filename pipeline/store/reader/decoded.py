"""One view as any training loop takes it: values instead of codes, and how its pixels are made."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.store.reader.stored import StoredView
from pipeline.views.conventions import Preprocessing
from pipeline.views.geometry import ViewGeometry, scale_factors
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedView:
    """A view with ``P`` kept points, ``M`` of them in the main region, and ``G`` boxes.

    Coordinates are px of the view, the resized and flipped image without its padding: pixel ``i`` reaches
    from ``i`` to ``i + 1``.
    """

    stored: StoredView
    """The same with integer codes."""
    pyramid: Pyramid
    """Strides of the levels, and where in its cell a point lies."""
    preprocessing: Preprocessing
    """Pixels: ``mean``, ``std``, ``color`` (order of the channels), ``fit``, ``sampling``, ``fill``."""

    @property
    def key(self) -> ViewKey:
        """``(image_id, view)``."""
        return self.stored.view.key

    @property
    def geometry(self) -> ViewGeometry:
        """``original_hw``, ``resized_hw`` and ``padded_hw``, each ``(height, width)`` px, and ``flip``."""
        return self.stored.view.geometry

    @property
    def level(self) -> NDArray[np.integer]:
        """``(P,)``: each point's level, from the finest."""
        return self.stored.view.points.level

    @property
    def position(self) -> NDArray[np.integer]:
        """``(P,)``: row-major cell in the level's grid, which covers ``geometry.padded_hw``."""
        return self.stored.view.points.position

    @cached_property
    def flat(self) -> NDArray[np.int64]:
        """``(P,)``: number of the cell among those of all levels of the view's grid, level after level."""
        return self.pyramid.grid(self.geometry.padded_hw).flatten(self.level, self.position)

    @property
    def points_xy(self) -> NDArray[np.float32]:
        """``(P, 2)`` px."""
        return self.pyramid.grid(self.geometry.padded_hw).points[self.flat]

    @property
    def stride(self) -> NDArray[np.float32]:
        """``(P,)`` px: a distance of 1 bin."""
        return self.pyramid.grid(self.geometry.padded_hw).point_strides[self.flat]

    @property
    def main(self) -> NDArray[np.integer]:
        """``(P,)``: row of the object in ``boxes`` whose positive the point is (ATSS), or -1."""
        return self.stored.view.points.main_gt

    @property
    def valuable_weight(self) -> NDArray[np.float32]:
        """``(P,)`` in [0, 1]: weight in the valuable localization region, 0 outside it."""
        return self.stored.view.points.valuable_weight

    @property
    def boxes(self) -> NDArray[np.float32]:
        """``(G, 4)`` ground truth ``(x1, y1, x2, y2)`` px."""
        return self.stored.view.boxes_xyxy

    @property
    def labels(self) -> NDArray[np.int64]:
        """``(G,)``: rows of the store's ``classes``."""
        return self.stored.view.labels

    @cached_property
    def edge_logits(self) -> NDArray[np.float32]:
        """``(P, 4, bins)``: edges left, top, right, bottom; bin ``i`` is ``i`` strides away.

        Unless the store is lossless, an edge's logits are known up to a constant, which a softmax ignores.
        """
        return self.stored.edge_logits()

    @cached_property
    def cls_logits(self) -> NDArray[np.float32]:
        """``(M, classes)`` before the sigmoid, at the points where ``main >= 0``, in their order."""
        return self.stored.cls_logits()

    @property
    def image_to_view(self) -> NDArray[np.float64]:
        """``(2, 3)``: ``A`` with ``(x, y)`` of the view ``= A @ (x, y, 1)`` of the upright original, px.

        Boxes move by it as they are. ``cv2.warpAffine`` counts from centers of pixels, which lie at halves.
        """
        top, left = self.geometry.content_top_left
        horizontal, vertical = scale_factors(self.geometry)[:2].tolist()
        if self.geometry.flip:
            horizontal, left = -horizontal, self.geometry.resized_hw[1] - left
        return np.array([[horizontal, 0, left], [0, vertical, top]])
