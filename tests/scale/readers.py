"""Views of a store read by key in random order: this project's reader beside zarr and other formats.

    uv run python tests/scale/readers.py --views 300 --repeats 5

Every candidate first proves to read the same values as plain zarr. Candidates take turns within each repeat,
and the times are CPU times of the process.
"""

import argparse
import sys
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
from pipeline.store.format import schema as layout
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey

PATHS = (layout.REGION, layout.EDGE_CODES, layout.CLS_CODES)
"""Arrays of which a view has its own rows; its boxes are in tables that any reader holds in memory."""
IMAGE_BYTES = 1216 * 800 * 3
"""A decoded view of the recipes for COCO."""
OURS = "TargetStore.read"

Read = Callable[[ViewKey], Any]
Slices = Mapping[ViewKey, Mapping[str, slice]]
"""Where the rows of each view are, by array."""


def view_rows(store: Path) -> Slices:
    root = zarr.open_group(store, mode="r")
    tables = [np.asarray(root[path]) for path in (layout.IMAGE_ID, layout.VIEW, layout.EXTENT)]
    rows = {}
    for image_id, view, extent in zip(*tables, strict=True):
        points, main, _ = (slice(first, first + count) for first, count in extent.reshape(3, 2).tolist())
        rows[ViewKey(int(image_id), int(view))] = dict(zip(PATHS, (points, points, main), strict=True))
    return rows


def sliced(sources: Mapping[str, Any], rows: Slices) -> Read:
    """Rows of anything that can be sliced like an array, copied."""
    return lambda key: {path: np.array(source[rows[key][path]]) for path, source in sources.items()}


def copies(
    folder: Path, content: Mapping[ViewKey, Mapping[str, NDArray[Any]]]
) -> dict[str, tuple[Read, Path]]:
    """Readers of the same views in other formats, and where these lie."""
    for kind in ("npz", "packed", "pt", "memmap"):
        (folder / kind).mkdir()
    for key, rows in content.items():
        np.savez(folder / f"npz/{key}.npz", **rows)  # type: ignore[arg-type]
        np.savez_compressed(folder / f"packed/{key}.npz", **rows)  # type: ignore[arg-type]
        torch.save({path: torch.from_numpy(values) for path, values in rows.items()}, folder / f"pt/{key}.pt")
    mapped, place = {}, {key: dict[str, slice]() for key in content}
    for path in PATHS:
        file, ends = folder / "memmap" / f"{path.replace('/', '_')}.npy", 0
        np.save(file, np.concatenate([rows[path] for rows in content.values()]))
        mapped[path] = np.load(file, mmap_mode="r")
        for key, rows in content.items():
            place[key][path] = slice(ends, ends := ends + len(rows[path]))
    return {
        "one .npz a view": (lambda key: dict(np.load(folder / f"npz/{key}.npz")), folder / "npz"),
        "one .npz a view, compressed": (
            lambda key: dict(np.load(folder / f"packed/{key}.npz")),
            folder / "packed",
        ),
        "one .pt a view": (lambda key: torch.load(folder / f"pt/{key}.pt", weights_only=True), folder / "pt"),
        "memory map, uncompressed": (sliced(mapped, place), folder / "memmap"),
    }


def require_equal(name: str, given: Any, expected: Mapping[str, NDArray[Any]]) -> None:
    """Refuse to time a reader that reads something else than plain zarr."""
    if isinstance(given, StoredView):
        points, codes = (
            given.view.points,
            {layout.EDGE_CODES: given.edge_codes, layout.CLS_CODES: given.cls_codes},
        )
        columns = (points.level, points.position, points.main_gt)
        given = {layout.REGION: np.stack([*columns, expected[layout.REGION][:, 3]], axis=1), **codes}
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
    opened, rows = TargetStore.open(store), view_rows(store)
    root = zarr.open_group(store, mode="r")
    plain = sliced({path: root[path] for path in PATHS}, rows)
    content = {key: plain(key) for key in list(rows)[:views]}
    others = copies(folder, content)
    readers = {OURS: opened.read, "zarr": plain, **{name: read for name, (read, _) in others.items()}}
    for name, read in readers.items():
        for key, expected in content.items():
            require_equal(name, read(key), expected)
    medians, table = measure(readers, list(content), repeats), []
    for name, median in medians.items():
        files = others[name][1].rglob("*") if name in others else []
        size = (
            sum(file.stat().st_size for file in files) / len(content) or opened.statistics["bytes_per_view"]
        )
        table.append([name, f"{median:.3f}", f"{median / medians[OURS]:.2f}", f"{size / 1e3:.1f}"])
    return markdown_table(["reader", "CPU ms a view, median", "ratio", "KB a view"], table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--store", type=Path, metavar="PATH", help="a finished store; default: one is generated")
    add("--views", type=int, default=500, help="views to read; default: 500")
    add("--repeats", type=int, default=7, help="how often each reader reads each view; default: 7")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ldp-readers-") as name:
        (copied := Path(name, "copies")).mkdir()
        store = arguments.store or generate_store(Path(name, "generated"), arguments.views, 900)
        sys.stdout.write(compare(store, arguments.views, arguments.repeats, copied))


if __name__ == "__main__":
    main()
