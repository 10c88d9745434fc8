"""A teacher's outputs at the points of a batch, one view after another; codes stay codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pipeline.codec.dense import BOX_UNITS
from pipeline.codec.logits import CODE_OF_ZERO, EDGES, cosine_basis
from pipeline.store.reader.stored import StoredDense, StoredView
from pipeline.training.batches import DenseTeacher, TeacherBatch, concat_to_tensor
from pipeline.views.pyramid import Grid, Size


@dataclass(frozen=True, kw_only=True)
class CodedTeacherBatch(TeacherBatch):
    """Integer codes, which become logits on the device; or logits as the teacher gave them, without steps."""

    edges: Tensor
    """``ShortTensor[P, 4, bins - 1]`` of codes, or ``Tensor[P, 4, bins]``."""
    edge_steps: Tensor | None = None
    """``Tensor[P]``: see ``codec.logits``."""
    classes: Tensor
    """``ShortTensor[M, C]`` of codes, or ``Tensor[M, C]``."""
    cls_step: float | None = None
    """Logit = code * step."""

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]`` float32, up to a constant per edge: ``dequantize_edges`` on the device."""
        edges = self.edges.float()
        if self.edge_steps is None:
            return edges
        coefficients = (edges - CODE_OF_ZERO) * self.edge_steps[:, None, None]
        return coefficients @ _basis(edges.shape[-1] + 1, edges.device)

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]`` float32."""
        classes = self.classes.float()
        return classes if self.cls_step is None else classes * self.cls_step


def dense_teacher(parts: Sequence[StoredDense], padded_hw: Sequence[Size], grid: Grid) -> DenseTeacher:
    """Outputs of views of ``padded_hw`` px at their place in the ``grid`` of a batch; zeros elsewhere."""
    first = parts[0]
    classes = np.zeros((len(parts), len(grid), first.classes.shape[1]), first.classes.dtype)
    # Torch has next to no operation for uint16; a distance of 1,024 strides does not exist.
    distances = np.zeros((len(parts), len(grid), EDGES), np.float32 if first.scores is None else np.int16)
    for place, (part, size) in enumerate(zip(parts, padded_hw, strict=True)):
        valid = grid.valid(size)
        classes[place, valid], distances[place, valid] = part.classes, part.distances
    return DenseTeacher(
        classes=torch.from_numpy(classes),
        scores=None if first.scores is None else torch.from_numpy(first.scores),
        distances=torch.from_numpy(distances),
        unit=1.0 if first.scores is None else 1 / BOX_UNITS,
    )


@cache
def _basis(bins: int, device: torch.device) -> Tensor:
    """``Tensor[bins - 1, bins]``, copied to each device once."""
    return torch.from_numpy(cosine_basis(bins).astype(np.float32)).to(device)


def stored_teacher_batch(
    stored: Sequence[StoredView], dense: DenseTeacher | None = None
) -> CodedTeacherBatch:
    """The outputs at the points of some views of one store, and those at all positions, if they are read."""
    first = stored[0]
    edges = concat_to_tensor([view.edge_codes for view in stored], first.edge_codes.dtype)
    steps = [view.edge_steps for view in stored if view.edge_steps is not None]
    return CodedTeacherBatch(
        edges=edges.reshape(len(edges), EDGES, edges.shape[1] // EDGES),
        edge_steps=concat_to_tensor(steps, np.float32) if steps else None,
        classes=concat_to_tensor([view.cls_codes for view in stored], first.cls_codes.dtype),
        cls_step=first.cls_step,
        dense=dense,
    )
