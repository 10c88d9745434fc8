"""Soft targets of a batch: stored codes of its views, joined, and dequantized where the losses are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.codec.edges import CODE_OF_ZERO, EDGES, cosine_basis
from pipeline.store.reader.stored import StoredView
from pipeline.training.batches import TensorData, joined


@dataclass(frozen=True, kw_only=True)
class QuantizedTeacherBatch(TensorData):
    """What the teacher said at a batch's points: integer codes, or float logits if their step is 0."""

    edge_codes: Tensor
    """``ShortTensor[P, 4 * (bins - 1)]`` codes, or ``Tensor[P, 4 * bins]`` logits as they are."""
    edge_steps: Tensor
    """``Tensor[P]``: see ``codec.edges``; 0 where logits are stored as they are."""
    cls_codes: Tensor
    """``Tensor[M, C]``."""
    cls_step: float
    """Logit = code * step; 0 marks logits that are stored as they are."""

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]`` float32, up to a constant per edge: ``dequantize_edges`` on the device."""
        codes = self.edge_codes
        values = codes.float().reshape(len(codes), EDGES, codes.shape[1] // EDGES)
        if codes.is_floating_point():
            return values
        coefficients = (values - CODE_OF_ZERO) * self.edge_steps[:, None, None]
        return coefficients @ _basis(values.shape[-1] + 1, values.device)

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]`` float32."""
        return self.cls_codes.float() * (self.cls_step or 1.0)


@cache
def _basis(bins: int, device: torch.device) -> Tensor:
    """``Tensor[bins - 1, bins]``, copied to each device once."""
    return torch.from_numpy(cosine_basis(bins).astype(np.float32)).to(device)


def quantized_teacher_batch(stored: Sequence[StoredView]) -> QuantizedTeacherBatch:
    """Concatenate codes; they stay integers until they are on the device."""
    steps = [_steps(view) for view in stored]
    return QuantizedTeacherBatch(
        edge_codes=joined([view.edge_codes for view in stored], stored[0].edge_codes.dtype),
        edge_steps=joined(steps, np.float32),
        cls_codes=joined([view.cls_codes for view in stored], stored[0].cls_codes.dtype),
        cls_step=stored[0].cls_step or 0.0,
    )


def _steps(view: StoredView) -> NDArray[np.float32]:
    return np.zeros(len(view.edge_codes), np.float32) if view.edge_steps is None else view.edge_steps
