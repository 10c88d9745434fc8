"""What a store will take on the disk, from its layout alone, before the teacher runs.

Bits per code were measured (``pipeline/codec/README.md``) on two teachers that have little in common, a real
COCO detector of 8 bins and the 17-bin teacher of ``shapes``. Halving a step adds a bit. The estimate takes
the higher of the two: it is 0-40 % too large, the more so the coarser the steps.
"""

import math

from pipeline.codec.logits import EDGES, edge_columns
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, position_counts

EDGE_BITS_AT, CLS_BITS_AT = (0.04, 6.2), (0.03, 8.8)
"""Step, and bits of a code at that step."""
REGION_BYTES = 2.6
"""Level, position, assignment and weight of a point."""

LOSSLESS_EDGE_BITS, LOSSLESS_CLS_BITS, LOSSLESS_REGION_BYTES = 26.5, 24.5, 4.5
MIN_BITS = 1.0
PIXEL_BYTES = 200
"""Checksum and thumbnail of a view, which hardly compress."""
FILE_BYTES = 2**15
"""Tables and metadata of a small store."""

DENSE_CLASS_BYTES, DENSE_BOX_BYTES = 0.15, 4.5
"""Of a position, where no teacher was probed: 0.11 and 3.4 measured with NanoDet."""
DENSE_LOSSLESS_SHARE = 0.95
"""Of float32."""


def estimate_bytes(schema: StoreSchema, table: ViewIndex, dense_row_bytes: float | None = None) -> int:
    """Bytes of a finished store of this layout; ``dense_row_bytes`` of a position, if that was probed."""
    points, main, boxes = (int(total) for total in table.counts.sum(axis=0))
    precision = schema.precision
    edges = points * edge_columns(schema.bins, lossless=precision.lossless)
    classes = (points if schema.valuable_classes else main) * schema.num_classes
    edge_bits, cls_bits, region = LOSSLESS_EDGE_BITS, LOSSLESS_CLS_BITS, LOSSLESS_REGION_BYTES
    if precision.edge_step and precision.cls_step:
        edge_bits, cls_bits = (
            _bits(*EDGE_BITS_AT, precision.edge_step),
            _bits(*CLS_BITS_AT, precision.cls_step),
        )
        region = REGION_BYTES
    size = (edges * edge_bits + classes * cls_bits) / 8 + points * region
    size += 16 * boxes + (24 + PIXEL_BYTES * schema.pixels) * schema.views + FILE_BYTES
    if schema.dense:
        row_bytes = schema.num_classes * DENSE_CLASS_BYTES + DENSE_BOX_BYTES
        if schema.dense.lossless:
            row_bytes = 4 * (schema.num_classes + EDGES) * DENSE_LOSSLESS_SHARE
        size += position_counts(table.geometry, schema.strides).sum() * (dense_row_bytes or row_bytes)
    return int(size)


def _bits(known_step: float, known_bits: float, step: float) -> float:
    return max(MIN_BITS, known_bits - math.log2(step / known_step))
