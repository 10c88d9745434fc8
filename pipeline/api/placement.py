"""From the views of a batch to targets in its grid, for any training loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from pipeline.store.reader.stored import DecodedView, StoredView
from pipeline.student.targets import TeacherBatch, stored_teacher_batch
from pipeline.training.batches import BatchLabels, batch_labels
from pipeline.views.pyramid import Grid, Size


@dataclass(frozen=True, kw_only=True)
class TargetBatch(BatchLabels):
    """Targets at the ``P`` points of a batch, of which those in ``main`` are in the main region.

    ``maps[targets.image, targets.index]`` are a network's outputs at these points, where ``maps`` is
    ``Tensor[B, N, ...]``: the cells of all levels, level after level, row-major in each.
    """

    teacher: TeacherBatch

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]``: left, top, right, bottom; up to a constant per edge unless lossless."""
        return self.teacher.edge_logits()

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]`` before the sigmoid, at the main region."""
        return self.at_main(self.teacher.cls_logits())


def place_targets(views: Sequence[DecodedView], batch_hw: Size) -> TargetBatch:
    """Place the points of views of one store in the grid of a batch, images in its upper left corner.

    ``batch_hw`` is ``(height, width)`` px, a ``ValueError`` if a view is larger. Points of a view's padding
    that the batch lacks are left out.
    """
    if not views:
        raise ValueError("expected a view for each image of a batch, but got none")
    for view in views:
        if any(side > limit for side, limit in zip(view.geometry.resized_hw, batch_hw, strict=True)):
            raise ValueError(
                f"image_id={view.key.image_id}: expected a batch of at least the view's "
                f"{view.geometry.resized_hw} px, but got {tuple(batch_hw)}"
            )
    if len({(view.pyramid, view.stored.cls_step) for view in views}) > 1:
        raise ValueError("expected views of one store, but got some of other levels or steps")
    pyramid = views[0].pyramid
    kept = [_within(view, pyramid.grid(batch_hw)) for view in views]
    labels = batch_labels([view.view for view in kept], batch_hw, pyramid)
    return TargetBatch(**vars(labels), teacher=stored_teacher_batch(kept))


def _within(view: DecodedView, grid: Grid) -> StoredView:
    """A view without the points outside a grid: they are in its padding, and so none of the main region."""
    stored, points = view.stored, view.stored.view.points
    rows, columns = np.asarray(grid.sizes)[points.level].T
    widths = np.asarray(view.pyramid.grid(view.geometry.padded_hw).sizes)[points.level, 1]
    fits = (points.position // widths < rows) & (points.position % widths < columns)
    if fits.all():
        return stored
    inside = replace(points, **{name: values[fits] for name, values in vars(points).items()})
    return replace(
        stored,
        view=replace(stored.view, points=inside),
        edge_codes=stored.edge_codes[fits],
        cls_codes=stored.cls_codes[fits] if len(stored.cls_codes) == len(fits) else stored.cls_codes,
        edge_steps=None if stored.edge_steps is None else stored.edge_steps[fits],
    )
