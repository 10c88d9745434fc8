"""From single views to a batch: padding, and the place of every kept point in the batch's grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.views.conventions import Preprocessing
from pipeline.views.images import batch_images
from pipeline.views.pyramid import Pyramid, Size
from pipeline.views.types import LabeledView


@dataclass(frozen=True, kw_only=True)
class TensorData:
    """A dataclass of tensors that moves as a whole."""

    def to(self, device: torch.device) -> Self:
        """The same with every tensor on ``device``."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {
            name: t.to(device, non_blocking=True) for name, t in tensors.items() if isinstance(t, Tensor)
        }
        return replace(self, **moved)


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
    """``BoolTensor[P]``: the point is in the main region."""
    boxes_xyxy: Tensor
    """``Tensor[M, 4]`` px: the box that each main-region point is positive for."""
    labels: Tensor
    """``LongTensor[M]``."""
    valuable_weight: Tensor
    """``Tensor[P]``: VLR weight; 0 outside the valuable region."""


class TeacherBatch(Protocol):
    """What a teacher said at a batch's points, wherever it comes from."""

    def to(self, device: torch.device) -> Self:
        """The same on ``device``."""
        ...

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]`` float32, up to a constant per edge."""
        ...

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]`` float32, at the main region."""
        ...


@dataclass(frozen=True, kw_only=True)
class Example:
    """One view as it leaves the data loader's worker."""

    pixels: Tensor
    """``ByteTensor[3, H, W]``, resized and flipped, not padded."""
    view: LabeledView
    teacher: Any
    """Soft targets in the form that its source joins; ``None`` where there are none."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input."""

    images: Tensor
    """``Tensor[B, 3, H, W]``, normalized and padded."""
    targets: BatchLabels
    teacher: TeacherBatch | None

    def to(self, device: torch.device) -> "Batch":
        """The same on ``device``."""
        return Batch(
            images=self.images.to(device, non_blocking=True, memory_format=torch.channels_last),
            targets=self.targets.to(device),
            teacher=self.teacher.to(device) if self.teacher else None,
        )

    def pin_memory(self) -> "Batch":
        """Called by the loader for CUDA: only the images are large enough to matter."""
        return replace(self, images=self.images.pin_memory())


def collate(
    examples: Sequence[Example],
    pyramid: Pyramid,
    batch_hw: Size,
    preprocessing: Preprocessing,
    join: Callable[[list[Any]], TeacherBatch],
) -> Batch:
    """Pad examples to ``batch_hw`` px and place their points; soft targets only if every example has them."""
    stored = [example.teacher for example in examples if example.teacher is not None]
    return Batch(
        images=batch_images([example.pixels for example in examples], [batch_hw], preprocessing),
        targets=batch_labels([example.view for example in examples], batch_hw, pyramid),
        teacher=join(stored) if len(stored) == len(examples) else None,
    )


def batch_labels(planned: Sequence[LabeledView], batch_hw: Size, pyramid: Pyramid) -> BatchLabels:
    """Place the points of every view in the grid of a batch of ``batch_hw`` px."""
    grid = pyramid.grid(batch_hw)
    grids = [pyramid.grid(view.geometry.padded_hw) for view in planned]
    index = [
        alone.flatten_into(grid, view.points.level, view.points.position)
        for view, alone in zip(planned, grids, strict=True)
    ]
    counts = [len(view.points) for view in planned]
    main_gt = [view.points.main_gt for view in planned]
    boxes = [view.boxes_xyxy[gt[gt >= 0]] for view, gt in zip(planned, main_gt, strict=True)]
    labels = [view.labels[gt[gt >= 0]] for view, gt in zip(planned, main_gt, strict=True)]
    return BatchLabels(
        sizes=grid.sizes,
        valid=torch.from_numpy(np.stack([grid.valid(view.geometry.padded_hw) for view in planned])),
        image=torch.arange(len(planned)).repeat_interleave(torch.tensor(counts)),
        index=joined(index, np.int64),
        level=joined([view.points.level for view in planned], np.int64),
        main=joined([gt >= 0 for gt in main_gt], np.bool_),
        boxes_xyxy=joined(boxes, np.float32),
        labels=joined(labels, np.int64),
        valuable_weight=joined([view.points.valuable_weight for view in planned], np.float32),
    )


def joined(parts: Sequence[NDArray[np.generic]], dtype: type[np.generic] | np.dtype[np.generic]) -> Tensor:
    """Arrays one after another, as one tensor of ``dtype``."""
    return torch.from_numpy(np.concatenate(parts).astype(dtype, copy=False))
