"""Views of a store read by key in random order: this project's reader beside zarr and other formats.

    uv run python tests/scale/readers.py --views 300 --repeats 5

Every candidate first proves to read the same values as plain zarr. Candidates take turns within each repeat,
and the times are CPU times of the process.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from generated_store import generate_store
from numpy.typing import NDArray

from pipeline.core.tables import markdown_table
from pipeline.store.format.schema import CLS_CODES, EDGE_CODES, EXTENT, REGION
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey

PATHS = (REGION, EDGE_CODES, CLS_CODES)
"""Arrays of which a view has its own rows; its boxes are in tables that any reader holds in memory."""
IMAGE_BYTES = 1216 * 800 * 3
"""A decoded view of the recipes for COCO."""
OURS = "TargetStore.read"

Rows = Mapping[str, NDArray[Any]]
Read = Callable[[ViewKey], Any]
Slices = Mapping[ViewKey, Mapping[str, slice]]
"""Where the rows of each view are, by array."""


def sliced(sources: Mapping[str, Any], rows: Slices) -> Read:
    """Rows of anything that can be sliced like an array, copied."""
    return lambda key: {path: np.array(source[rows[key][path]]) for path, source in sources.items()}


def copies(folder: Path, content: Mapping[ViewKey, Rows]) -> dict[str, tuple[Read, Path]]:
    """Readers of the same views in other formats, and where these lie."""
    npz, packed, pt, memmap = (folder / kind for kind in ("npz", "packed", "pt", "memmap"))
    for place in (npz, packed, pt, memmap):
        place.mkdir()
    for key, rows in content.items():
        np.savez(npz / f"{key}.npz", **rows)  # type: ignore[arg-type]
        np.savez_compressed(packed / f"{key}.npz", **rows)  # type: ignore[arg-type]
        torch.save({path: torch.from_numpy(values) for path, values in rows.items()}, pt / f"{key}.pt")
    mapped, slices = {}, {key: dict[str, slice]() for key in content}
    for path in PATHS:
        file, ends = memmap / f"{path.replace('/', '_')}.npy", 0
        np.save(file, np.concatenate([rows[path] for rows in content.values()]))
        mapped[path] = np.load(file, mmap_mode="r")
        for key, rows in content.items():
            slices[key][path] = slice(ends, ends := ends + len(rows[path]))
    return {
        "one .npz a view": (lambda key: dict(np.load(npz / f"{key}.npz")), npz),
        "one .npz a view, compressed": (lambda key: dict(np.load(packed / f"{key}.npz")), packed),
        "one .pt a view": (lambda key: torch.load(pt / f"{key}.pt", weights_only=True), pt),
        "memory map, uncompressed": (sliced(mapped, slices), memmap),
    }


def require_equal(name: str, given: Any, expected: Rows) -> None:
    """Refuse to time a reader that reads something else than plain zarr."""
    if isinstance(given, StoredView):
        points = given.view.points
        columns = (points.level, points.position, points.main_gt, expected[REGION][:, 3])
        codes = {EDGE_CODES: given.edge_codes, CLS_CODES: given.cls_codes}
        given = {REGION: np.stack(columns, axis=1), **codes}
    for path, values in expected.items():
        if not np.array_equal(given[path], values):
            raise ValueError(f"{name}: expected {path} as plain zarr reads it, but got other values")


def measure(readers: Mapping[str, Read], keys: list[ViewKey], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of every reader, each repeat in new random orders."""
    # As a process that loads training data does for every view. After that, glibc keeps smaller blocks for
    # the next read; before, the page faults cost half as much again as reading.
    np.ones(IMAGE_BYTES, np.uint8)
    rng, times = np.random.default_rng(0), {name: list[float]() for name in readers}
    for _ in range(repeats):
        order = rng.permutation(len(keys)).tolist()
        for name in rng.permutation(list(readers)).tolist():
            for index in order:
                start = time.process_time()
                readers[name](keys[index])
                times[name].append((time.process_time() - start) * 1e3)
    return {name: float(np.median(milliseconds)) for name, milliseconds in times.items()}


def compare(store: Path, views: int, repeats: int, folder: Path) -> str:
    """The table."""
    opened, root = TargetStore.open(store), zarr.open_group(store, mode="r")
    slices = {}
    for key, extent in zip(opened.keys[:views], np.asarray(root[EXTENT]), strict=False):
        points, main, _ = (slice(first, first + count) for first, count in extent.reshape(3, 2).tolist())
        slices[key] = dict(zip(PATHS, (points, points, main), strict=True))
    plain = sliced({path: root[path] for path in PATHS}, slices)
    content = {key: plain(key) for key in slices}
    others = copies(folder, content)
    readers = {OURS: opened.read, "zarr": plain, **{name: read for name, (read, _) in others.items()}}
    for name, read in readers.items():
        for key, expected in content.items():
            require_equal(name, read(key), expected)
    medians, table = measure(readers, list(content), repeats), []
    sizes = dict.fromkeys(readers, opened.statistics["bytes_per_view"])
    for name, (_, place) in others.items():
        sizes[name] = sum(file.stat().st_size for file in place.iterdir()) / len(content)
    for name, median in medians.items():
        table.append([name, f"{median:.3f}", f"{median / medians[OURS]:.2f}", f"{sizes[name] / 1e3:.1f}"])
    return markdown_table(["reader", "CPU ms a view, median", "ratio", "KB a view"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", type=Path, help="a finished store; default: one is generated")
    parser.add_argument("--views", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7, help="how often each reader reads each view")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ldp-readers-") as name:
        (copied := Path(name, "copies")).mkdir()
        given = arguments.store or generate_store(Path(name, "generated"), arguments.views, 900)
        print(compare(given, arguments.views, arguments.repeats, copied), end="")
