"""A store in facts, from its attributes alone: as fast for a large store as for a small one."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.digest import digest
from pipeline.core.errors import CacheError
from pipeline.core.progress import describe_bytes
from pipeline.store.format.schema import IMAGE_ID, StoreSchema, table_specs
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.shards import read_table

METADATA = "metadata"
"""Stands for all ``zarr.json`` but the root's own, which records the sizes of the others."""


def describe_store(path: Path) -> dict[str, Any]:
    """The attributes of a finished store, but for its list of files, and what follows from them.

    A damaged store is described, too, as long as its attributes are whole.

    Raises:
        CacheError: There is no store, or it is unfinished, of another version, or its attributes are damaged.
    """
    attributes = read_finished(path)
    schema, sums = StoreSchema.from_json(attributes["schema"]), attributes["statistics"]
    files = list(recorded_files(attributes))
    wrong = {file.name: file.digest.size_problem(path / file.name) for file in files}
    sizes: Counter[str] = Counter()
    for file in files:
        array, _, chunk = file.name.partition("/c/")
        sizes[array if chunk else METADATA] += file.digest.size
    views = max(1, schema.views)
    return {
        "path": str(path),
        "files": {name: problem for name, problem in wrong.items() if problem}
        or "all there and of the recorded size; `ldp store verify` reads them",
        "size": f"{describe_bytes(sums['bytes'])}; {describe_bytes(sums['bytes_per_view'])} per view, "
        f"{sums['bytes_per_point']:.1f} B per kept point",
        "bytes": dict(sizes.most_common()),
        "images": _count_images(path, schema),
        "partitions": schema.partitions,
        "points_per_view": {
            "kept": round(sums["points"] / views, 1),
            "main_region": round(sums["main_points"] / views, 1),
            "valuable_region": round(sums["valuable_points"] / views, 1),
        },
        "statistics": sums,
        "quantizer": attributes["quantizer"],
        "fingerprint_sha256": digest(schema.fingerprint),
        **attributes["schema"],
    }


def _count_images(path: Path, schema: StoreSchema) -> int | None:
    """How many images the views are of, the one fact that the attributes lack; ``None`` if it is damaged."""
    (spec,) = (spec for spec in table_specs(schema) if spec.path == IMAGE_ID)
    try:
        return len(np.unique(read_table(path, spec)))
    except (CacheError, OSError):
        return None
