"""What a store holds, in numbers: sums that its writer recorded, its files and its tables."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.codec.edges import EDGES
from pipeline.store.format.schema import GEOMETRY, table_specs
from pipeline.store.format.table import position_counts
from pipeline.store.reader.reader import TargetStore, read_finished, recorded_files
from pipeline.store.reader.shards import read_table

FLOAT32_BYTES, FLOAT16_BYTES = 4, 2


@dataclass(frozen=True, kw_only=True)
class StoreStatistics:
    """Counts over a whole store, and its sizes."""

    totals: Mapping[str, Any]
    """The sums that its writer recorded."""
    bytes_by_part: Mapping[str, int]
    """Bytes on the disk by sharded array, the largest first; tables and metadata together."""
    positions: int
    """Positions of the grids of all views."""

    def size_by_choice(self, bins: int, num_classes: int) -> dict[str, int]:
        """Bytes of all views by what is kept of them, from the whole output to what the store takes.

        LD reads edges at kept points and classes at the main ones; neither is compressed.
        """
        dense = self.positions * (EDGES * bins + num_classes)
        kept = self.totals["points"] * EDGES * bins + self.totals["main_points"] * num_classes
        return {
            "all positions, float32": dense * FLOAT32_BYTES,
            "all positions, float16": dense * FLOAT16_BYTES,
            "points LD reads, float32": kept * FLOAT32_BYTES,
            "points LD reads, float16": kept * FLOAT16_BYTES,
            "this store": int(self.totals["bytes"]),
        }


def measure_store(store: TargetStore) -> StoreStatistics:
    """Read the attributes and the geometry of a store; a ``CacheError`` if it is damaged."""
    parts: Counter[str] = Counter()
    for file in recorded_files(read_finished(store.path)):
        sharded = file.partition is not None
        parts[file.name.partition("/c/")[0] if sharded else "tables, metadata"] += file.digest.size
    (geometry,) = (spec for spec in table_specs(store.schema) if spec.path == GEOMETRY)
    return StoreStatistics(
        totals=store.statistics,
        bytes_by_part=dict(parts.most_common()),
        positions=int(position_counts(read_table(store.path, geometry), store.schema.strides).sum()),
    )
