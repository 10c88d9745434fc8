"""A teacher at every position of a view, quantized where it was computed: a byte a class and two an edge."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch

from pipeline.codec.dense import BOX_UNITS, TAIL_LIMIT, TAIL_UNIT, DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.schema import (
    DENSE_BOXES,
    DENSE_CHUNK_ROWS,
    DENSE_CLASSES,
    StoreSchema,
    sharded_specs,
)
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import DenseOutputs, LabeledView, SoftTargets

PROBED_VIEWS = 16
MARGIN = 1.25
"""Over the mean of so few views."""


def dense_outputs(
    raw: RawOutputs, batch: Sequence[LabeledView], precision: DensePrecision
) -> list[DenseOutputs]:
    """Of each view of a batch; view by view, so that the device needs room for one.

    Raises:
        TeacherError: an output is not finite; names its view.
    """
    edges = None if precision.lossless else _class_edges(precision, raw.cls_logits.device)
    outputs = []
    for number, view in enumerate(batch):
        logits, edge_logits = raw.cls_logits[number].float(), raw.edge_logits[number].float()
        if not (logits.isfinite().all() & edge_logits.isfinite().all()):
            raise TeacherError(
                f"image_id={view.key.image_id}, view={view.key.view}: expected finite teacher outputs at "
                "every position, but some are not"
            )
        distances = expected_distances(edge_logits)
        if edges is None:
            outputs.append(DenseOutputs(classes=logits.cpu().numpy(), distances=distances.cpu().numpy()))
            continue
        codes = torch.bucketize(logits, edges, out_int32=True, right=True).to(torch.uint8)
        units = (logits.clamp(min=-TAIL_LIMIT) * TAIL_UNIT).round_().masked_fill_(codes > 0, 0)
        distances = (distances * BOX_UNITS).round_().to(torch.int16)
        outputs.append(
            DenseOutputs(
                classes=codes.cpu().numpy(),
                distances=distances.cpu().numpy().astype("uint16"),
                tail_units=int(units.to(torch.int64).sum()),
            )
        )
    return outputs


@cache
def _class_edges(precision: DensePrecision, device: torch.device) -> torch.Tensor:
    """Copied once: the host waits for what does not lie in pinned memory."""
    return torch.from_numpy(precision.edges).to(device)


def probe_dense(
    run: Callable[[Sequence[LabeledView]], Iterator[SoftTargets]], view_set: ViewSet, schema: StoreSchema
) -> float:
    """Bytes of a position in the dense arrays, at most: measured on a few views with the actual teacher.

    Args:
        run: Of the teacher.
        view_set: Some of its views are written, in memory.
        schema: Of a store with dense arrays.
    """
    rows = np.unique(np.linspace(0, len(view_set) - 1, PROBED_VIEWS).astype(int)).tolist()
    views = [view for row in rows for view in view_set.in_rows(slice(row, row + 1))]
    arrays = quantize_partition(schema, views, list(run(views))).arrays
    positions = len(arrays[DENSE_CLASSES])
    shard_rows = -(-positions // DENSE_CHUNK_ROWS) * DENSE_CHUNK_ROWS
    specs = (spec for spec in sharded_specs(schema) if spec.path in (DENSE_CLASSES, DENSE_BOXES))
    contents = (
        encode_shard(replace(spec, shards=(shard_rows, spec.shape[1])), arrays[spec.path]) for spec in specs
    )
    return MARGIN * sum(map(len, contents)) / positions
