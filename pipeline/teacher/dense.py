"""A teacher at every position of a view, quantized where it was computed: a byte a class and two an edge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pipeline.codec.dense import BOX_UNITS, TAIL_LIMIT, TAIL_UNIT, DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import DenseOutputs, LabeledView


@dataclass(frozen=True, eq=False)
class PendingDense:
    """A batch's outputs at all positions, on their way to the host, which is to wait before it reads them."""

    classes: Tensor
    """``ByteTensor[B, N, C]`` of codes; if lossless, float logits."""
    distances: Tensor
    """``ShortTensor[B, N, 4]``, or float: see ``DenseOutputs``."""
    tail_units: Tensor
    """``LongTensor[B]``."""
    finite: Tensor
    """``BoolTensor[B]``: all of a view's outputs are."""

    def read(self, batch: Sequence[LabeledView]) -> Iterator[DenseOutputs]:
        """Of each view; a ``TeacherError`` names one with an output that is not finite."""
        classes, distances = self.classes.numpy(), self.distances.numpy()
        if distances.dtype == np.int16:
            distances = distances.view(np.uint16)  # torch has next to no operation for it
        rows = zip(batch, classes, distances, self.tail_units.tolist(), self.finite.tolist(), strict=True)
        for view, codes, edges, tail, finite in rows:
            if not finite:
                raise TeacherError(
                    f"image_id={view.key.image_id}, view={view.key.view}: expected finite teacher outputs at "
                    "every position, but some are not"
                )
            yield DenseOutputs(classes=codes, distances=edges, tail_units=tail)


def dense_outputs(raw: RawOutputs, precision: DensePrecision) -> PendingDense:
    """Quantized view by view, so that the device needs room for one, and copied together."""
    views = [_quantize(*maps, precision) for maps in zip(raw.cls_logits, raw.edge_logits, strict=True)]
    columns = (torch.stack(column).to("cpu", non_blocking=True) for column in zip(*views, strict=True))
    return PendingDense(*columns)


def _quantize(logits: Tensor, edge_logits: Tensor, precision: DensePrecision) -> tuple[Tensor, ...]:
    """A view's row of each tensor of :class:`PendingDense`."""
    logits, edge_logits = logits.float(), edge_logits.float()
    finite = logits.isfinite().all() & edge_logits.isfinite().all()
    distances = expected_distances(edge_logits)
    if precision.lossless:
        return logits, distances, logits.new_zeros((), dtype=torch.int64), finite
    codes = torch.bucketize(logits, _class_edges(precision, logits.device), out_int32=True, right=True)
    units = (logits.clamp(min=-TAIL_LIMIT) * TAIL_UNIT).round_().masked_fill_(codes > 0, 0)
    distances = (distances * BOX_UNITS).round_().to(torch.int16)
    return codes.to(torch.uint8), distances, units.to(torch.int64).sum(), finite


@cache
def _class_edges(precision: DensePrecision, device: torch.device) -> Tensor:
    """Copied once: the host waits for what does not lie in pinned memory."""
    return torch.from_numpy(precision.edges).to(device)
