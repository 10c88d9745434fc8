"""What a store will take on the disk, from its layout alone, before the teacher runs.

Bits per code were measured with ``ldp store fidelity`` on two teachers that have little in common, a real
COCO detector of 8 bins and the 17-bin teacher of ``shapes``. Halving a step adds a bit. The estimate takes
the higher of the two: it is 0-40 % too large, the more so the coarser the steps.
"""

import math

from pipeline.codec.edges import edge_columns
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex

EDGE_BITS_AT = (0.04, 6.2)
"""Step, and bits of an edge code at that step; 5.0 with ``released`` regions, whose weights are lower."""
CLS_BITS_AT = (0.03, 8.8)
"""Step, and bits of a class code at that step."""
REGION_BYTES = 2.6
"""Level, position, assignment and weight of a point."""

LOSSLESS_EDGE_BITS, LOSSLESS_CLS_BITS, LOSSLESS_REGION_BYTES = 26.5, 24.5, 4.5
MIN_BITS = 1.0
FILE_BYTES = 2**15
"""Tables and metadata of a small store."""


def estimate_bytes(schema: StoreSchema, table: ViewIndex) -> int:
    """Bytes of a finished store of this layout."""
    points, main, boxes = (int(total) for total in table.counts.sum(axis=0))
    precision = schema.precision
    edges = points * edge_columns(schema.bins, lossless=precision.lossless)
    classes = main * schema.num_classes
    if precision.edge_step is None or precision.cls_step is None:
        bits = edges * LOSSLESS_EDGE_BITS + classes * LOSSLESS_CLS_BITS
        region = points * LOSSLESS_REGION_BYTES
    else:
        bits = edges * _bits(EDGE_BITS_AT, precision.edge_step) + classes * _bits(
            CLS_BITS_AT, precision.cls_step
        )
        region = points * REGION_BYTES
    tables = 16 * boxes + 24 * schema.views + FILE_BYTES
    return int(bits / 8 + region + tables)


def _bits(at: tuple[float, float], step: float) -> float:
    known_step, known_bits = at
    return max(MIN_BITS, known_bits - math.log2(step / known_step))
