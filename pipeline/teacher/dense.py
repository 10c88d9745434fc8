"""A teacher at every position of a view, quantized where it was computed: a byte a class and two an edge."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.codec.dense import BOX_UNITS, TAIL_LIMIT, TAIL_UNIT, DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.core.progress import describe_bytes
from pipeline.detector.head import RawOutputs
from pipeline.regions.view_set import ViewSet
from pipeline.store.format import schema as layout
from pipeline.store.format.attributes import read_attributes
from pipeline.store.format.schema import StoreSchema, sharded_specs
from pipeline.store.format.table import ViewIndex, position_counts
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import DenseOutputs, LabeledView, SoftTargets

logger = logging.getLogger(__name__)

PROBED_VIEWS = 16
MARGIN = 1.25
"""Over the mean of so few views."""


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


def probe_dense(
    run: Callable[[Sequence[LabeledView]], Iterator[SoftTargets]], view_set: ViewSet, schema: StoreSchema
) -> float:
    """Bytes of a position in dense arrays, at most: of a few views, which the actual teacher may ``run``."""
    rows = np.unique(np.linspace(0, len(view_set) - 1, PROBED_VIEWS).astype(int)).tolist()
    views = [view for row in rows for view in view_set.in_rows(slice(row, row + 1))]
    arrays = quantize_partition(schema, views, list(run(views))).arrays
    positions = len(arrays[layout.DENSE_CLASSES])
    shard_rows = -(-positions // layout.DENSE_CHUNK_ROWS) * layout.DENSE_CHUNK_ROWS
    specs = [
        replace(spec, shards=(shard_rows, spec.shape[1]))
        for spec in sharded_specs(schema)
        if spec.path in layout.DENSE
    ]
    return MARGIN * sum(len(encode_shard(spec, arrays[spec.path])[0]) for spec in specs) / positions


def say_if_larger(store: Path, schema: StoreSchema, table: ViewIndex, row_bytes: float) -> None:
    """Say it if the dense arrays of a finished store take more than ``row_bytes`` a position."""
    shards = (shard for record in read_attributes(store)["partitions"] for shard in record["shards"].items())
    taken = sum(file["size"] for name, file in shards if name.startswith(layout.DENSE))
    expected = row_bytes * float(position_counts(table.geometry, schema.strides).sum())
    if taken > expected:
        sizes = describe_bytes(taken), describe_bytes(expected)
        logger.warning("%s: the dense arrays take %s, where at most %s were expected", store, *sizes)
