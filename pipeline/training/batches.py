"""From single views to a batch: padding, and the place of every kept point in the batch's grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.views.conventions import Preprocessing
from pipeline.views.images import normalize_images
from pipeline.views.pyramid import Grid, Pyramid, Size
from pipeline.views.types import LabeledView, Pixels, ViewKey

if TYPE_CHECKING:  # a teacher's training has no use for the code of stores
    from pipeline.regions.view_set import ViewSet
    from pipeline.store.reader.reader import TargetStore

    Views = ViewSet | TargetStore


@dataclass(frozen=True, kw_only=True)
class TensorData:
    """A dataclass of tensors, and of others like it, that moves as a whole."""

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same with every tensor changed."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in values.items() if isinstance(value, Tensor)}
        inner = {n: value.each(change) for n, value in values.items() if isinstance(value, TensorData)}
        return replace(self, **changed, **inner)

    def to(self, device: torch.device) -> Self:
        """The same with every tensor on ``device``; the host does not wait if they are pinned."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The same in memory that a GPU copies from by itself; the loader calls it by this name."""
        return self.each(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory, which another stream has allocated, until this one is done with it."""

        def keep(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.each(keep)


@dataclass(frozen=True, kw_only=True)
class BatchLabels(TensorData):
    """What the annotations decide for a batch of ``B`` images with ``N`` positions each.

    ``P`` kept points, image after image; ``M`` of them are in the main region.
    """

    sizes: tuple[Size, ...]
    """Cells of every level of the *batch's* grid."""
    valid: Tensor
    """``BoolTensor[B, N]``: cells inside each image's own padding."""
    image: Tensor
    """``LongTensor[P]``: place of the point's image in the batch."""
    index: Tensor
    """``LongTensor[P]``: flat position in the batch's grid."""
    level: Tensor
    """``LongTensor[P]``."""
    main: Tensor
    """``LongTensor[M]``: which of the points are in the main region; a mask would make the host wait."""
    points_xy: Tensor
    """``Tensor[M, 2]`` px."""
    strides: Tensor
    """``Tensor[M]`` px."""
    boxes_xyxy: Tensor
    """``Tensor[M, 4]`` px: the box that each main-region point is positive for."""
    labels: Tensor
    """``LongTensor[M]``."""
    valuable_weight: Tensor
    """``Tensor[P]``: VLR weight; 0 outside the valuable region."""

    def at_main(self, rows: Tensor) -> Tensor:
        """``Tensor[M, ...]`` of rows of all points, or of the main region's, which they are already."""
        return rows[self.main] if len(rows) == len(self.index) else rows


@dataclass(frozen=True, kw_only=True)
class Batch(TensorData):
    """One step's input."""

    pixels: Tensor
    """``ByteTensor[B, H, W, 3]``, zeros beside each image."""
    sizes_hw: Tensor
    """``LongTensor[B, 2]`` px, of the images."""
    targets: BatchLabels
    teacher: TensorData | None
    """A teacher's outputs, of which only what distills knows more."""
    epoch: int
    """Finished ones."""

    def images(self, preprocessing: Preprocessing) -> Tensor:
        """``Tensor[B, 3, H, W]``: the pixels normalized, zeros beside each image."""
        return normalize_images(self.pixels, self.sizes_hw, preprocessing)


@dataclass(frozen=True, kw_only=True)
class TargetSource:
    """Targets of views, computed from the annotations or stored, and no teacher's outputs."""

    views: "Views"

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TensorData | None]:  # noqa: ARG002
        """Some views, and the teacher's outputs at their points in a batch's ``grid``, if there are any."""
        return [self.views.view(key) for key in keys], None

    def changed_pixels(self, key: ViewKey, pixels: Pixels) -> str | None:  # noqa: ARG002
        """How the pixels of a view differ from those that its teacher saw; None if they do not."""
        return None


def batch_labels(views: Sequence[LabeledView], batch_hw: Size, pyramid: Pyramid) -> BatchLabels:
    """Place the points of every view in the grid of a batch of ``batch_hw`` px."""
    grid = pyramid.grid(batch_hw)
    grids = [pyramid.grid(view.geometry.padded_hw) for view in views]
    index = [
        alone.flatten_into(grid, view.points.level, view.points.position)
        for view, alone in zip(views, grids, strict=True)
    ]
    counts = [len(view.points) for view in views]
    flat = np.concatenate(index)
    (main,) = np.nonzero(np.concatenate([view.points.main_region for view in views]))
    main_gt = [view.points.main_gt for view in views]
    boxes = [view.boxes_xyxy[gt[gt >= 0]] for view, gt in zip(views, main_gt, strict=True)]
    labels = [view.labels[gt[gt >= 0]] for view, gt in zip(views, main_gt, strict=True)]
    return BatchLabels(
        sizes=grid.sizes,
        valid=torch.from_numpy(np.stack([grid.valid(view.geometry.padded_hw) for view in views])),
        image=torch.arange(len(views)).repeat_interleave(torch.tensor(counts)),
        index=torch.from_numpy(flat),
        level=concat_to_tensor([view.points.level for view in views], np.int64),
        main=torch.from_numpy(main),
        points_xy=torch.from_numpy(grid.points[flat[main]]),
        strides=torch.from_numpy(grid.point_strides[flat[main]]),
        boxes_xyxy=concat_to_tensor(boxes, np.float32),
        labels=concat_to_tensor(labels, np.int64),
        valuable_weight=concat_to_tensor([view.points.valuable_weight for view in views], np.float32),
    )


def concat_to_tensor(
    parts: Sequence[NDArray[np.generic]], dtype: type[np.generic] | np.dtype[np.generic]
) -> Tensor:
    """Arrays one after another, as one tensor of ``dtype``."""
    return torch.from_numpy(np.concatenate(parts).astype(dtype, copy=False))
