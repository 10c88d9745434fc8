"""Views of a store read by key in random order: this project's reader beside zarr and other formats.

    uv run python tests/scale/readers.py --views 300 --repeats 5

Every candidate first proves to read the same values as plain zarr; tensorstore and zarrs take part if
installed. Candidates take turns within each repeat, and the times are CPU times of the process.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from generated_store import generate_store
from numpy.typing import NDArray

from pipeline.codec.weights import WeightCode
from pipeline.store.format import schema as layout
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey

PATHS = (layout.REGION, layout.EDGE_CODES, layout.CLS_CODES)
"""Arrays of which a view has its own rows; its boxes are in tables that any reader holds in memory."""
IMAGE_BYTES = 1216 * 800 * 3
"""A decoded view of the recipes for COCO."""
OURS = "TargetStore.read"

Rows = Mapping[str, NDArray[Any]]
Read = Callable[[ViewKey], Any]


def view_rows(store: Path) -> dict[ViewKey, dict[str, slice]]:
    """Where the rows of each view are."""
    root = zarr.open_group(store, mode="r")
    tables = [np.asarray(root[path]) for path in (layout.IMAGE_ID, layout.VIEW, layout.EXTENT)]
    rows = {}
    for image_id, view, extent in zip(*tables, strict=True):
        points, main, _ = (slice(first, first + count) for first, count in extent.reshape(3, 2).tolist())
        by_folder = {"points": points, "main": main}
        rows[ViewKey(int(image_id), int(view))] = {path: by_folder[path.split("/")[0]] for path in PATHS}
    return rows


def sliced(sources: Mapping[str, Any], rows: Mapping[ViewKey, Mapping[str, slice]]) -> Read:
    """Rows of anything that can be sliced like an array, copied."""
    return lambda key: {path: np.array(source[rows[key][path]]) for path, source in sources.items()}


def zarr_sources(store: Path) -> dict[str, Any]:
    root = zarr.open_group(store, mode="r")
    return {path: root[path] for path in PATHS}


def store_readers(store: Path, rows: Mapping[ViewKey, Mapping[str, slice]]) -> dict[str, Read]:
    """Readers of the store itself."""
    readers: dict[str, Read] = {OURS: TargetStore.open(store).read, "zarr": sliced(zarr_sources(store), rows)}
    if find_spec("zarrs"):
        import_module("zarrs")
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            readers["zarrs"] = sliced(zarr_sources(store), rows)
    if find_spec("tensorstore"):
        opened = {
            path: import_module("tensorstore")
            .open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / path}/"}})
            .result()
            for path in PATHS
        }
        readers["tensorstore"] = sliced(opened, rows)
    return readers


def copies(folder: Path, content: Mapping[ViewKey, Rows]) -> dict[str, tuple[Read, Path]]:
    """Readers of the same views in other formats, and where these lie."""

    def file(kind: str, key: ViewKey) -> Path:
        suffix = "pt" if kind == "pt" else "npz"
        return folder / kind / f"{key.image_id}_{key.view}.{suffix}"

    def read_npz(kind: str) -> Read:
        return lambda key: dict(np.load(file(kind, key)))

    for kind in ("npz", "npz_compressed", "pt", "memmap"):
        (folder / kind).mkdir()
    packed: dict[ViewKey, dict[str, slice]] = {}
    ends = dict.fromkeys(PATHS, 0)
    for key, rows in content.items():
        np.savez(file("npz", key), **rows)  # type: ignore[arg-type]
        np.savez_compressed(file("npz_compressed", key), **rows)  # type: ignore[arg-type]
        torch.save({path: torch.from_numpy(values.copy()) for path, values in rows.items()}, file("pt", key))
        packed[key] = {path: slice(ends[path], ends[path] + len(values)) for path, values in rows.items()}
        ends = {path: ends[path] + len(values) for path, values in rows.items()}
    mapped = {}
    for path in PATHS:
        array = folder / "memmap" / f"{path.replace('/', '_')}.npy"
        np.save(array, np.concatenate([rows[path] for rows in content.values()]))
        mapped[path] = np.load(array, mmap_mode="r")
    return {
        "one .npz a view": (read_npz("npz"), folder / "npz"),
        "one .npz a view, compressed": (read_npz("npz_compressed"), folder / "npz_compressed"),
        "one .pt a view": (lambda key: torch.load(file("pt", key), weights_only=True), folder / "pt"),
        "memory map, uncompressed": (sliced(mapped, packed), folder / "memmap"),
    }


def as_rows(read: Any, weights: WeightCode) -> Rows:
    """What a reader gave, as rows of the store."""
    if not isinstance(read, StoredView):
        return {path: np.asarray(values) for path, values in read.items()}
    points = read.view.points
    codes = weights.quantize(points.valuable_weight)
    region = np.stack([points.level, points.position, points.main_gt, codes], axis=1)
    return {layout.REGION: region, layout.EDGE_CODES: read.edge_codes, layout.CLS_CODES: read.cls_codes}


def require_equal(name: str, given: Rows, expected: Rows) -> None:
    """Refuse to time a reader that reads something else than plain zarr."""
    for path, values in expected.items():
        if not np.array_equal(given[path], values):
            raise ValueError(f"{name}: expected {path} as plain zarr reads it, but got other values")


def measure(readers: Mapping[str, Read], keys: list[ViewKey], repeats: int) -> dict[str, NDArray[np.float64]]:
    """CPU milliseconds ``(repeats, views)`` of every reader, each repeat in new random orders."""
    # As a process that loads training data does for every view. After that, glibc keeps smaller blocks for
    # the next read; before, the page faults cost half as much again as reading.
    np.ones(IMAGE_BYTES, np.uint8)
    rng, names = np.random.default_rng(0), list(readers)
    times = {name: np.empty((repeats, len(keys))) for name in names}
    for repeat in range(repeats):
        order = rng.permutation(len(keys)).tolist()
        for place in rng.permutation(len(names)).tolist():
            for index in order:
                start = time.process_time()
                readers[names[place]](keys[index])
                times[names[place]][repeat, index] = (time.process_time() - start) * 1e3
    return times


def compare(store: Path, views: int, repeats: int, folder: Path) -> str:
    """The table."""
    rows = view_rows(store)
    drawn = np.random.default_rng(0).permutation(len(rows))[:views]
    keys = [list(rows)[place] for place in sorted(drawn.tolist())]
    opened, plain = TargetStore.open(store), sliced(zarr_sources(store), rows)
    content = {key: plain(key) for key in keys}
    others = copies(folder, content)
    readers = store_readers(store, rows) | {name: read for name, (read, _) in others.items()}
    for name, read in readers.items():
        for key in keys:
            require_equal(name, as_rows(read(key), opened.schema.weight_code), content[key])
    times = measure(readers, keys, repeats)
    stored = opened.statistics["bytes_per_view"] / 1e3
    lines = [
        "| reader | CPU ms a view, median | p90 | undisturbed | ratio | KB a view |",
        "|---|---|---|---|---|---|",
    ]
    for name, milliseconds in times.items():
        median, size = np.median(milliseconds), stored
        undisturbed, ratio = np.median(milliseconds.min(axis=0)), median / np.median(times[OURS])
        if name in others:
            files = others[name][1].rglob("*")
            size = sum(file.stat().st_size for file in files) / len(keys) / 1e3
        lines.append(
            f"| {name} | {median:.3f} | {np.quantile(milliseconds, 0.9):.3f} | "
            f"{undisturbed:.3f} | {ratio:.2f} | {size:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--store", type=Path, metavar="PATH", help="a finished store; default: one is generated")
    add("--views", type=int, default=500, help="views to read; default: 500")
    add("--points", type=int, default=900, help="mean kept points of a generated view; default: 900")
    add("--repeats", type=int, default=7, help="how often each reader reads each view; default: 7")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ldp-readers-") as name:
        (copied := Path(name, "copies")).mkdir()
        store = arguments.store or generate_store(Path(name, "generated"), arguments.views, arguments.points)
        table = compare(store, arguments.views, arguments.repeats, copied)
    packages = ", ".join(
        f"{package} {version(package)}" for package in ("numpy", "torch", "zarr", "numcodecs")
    )
    sys.stdout.write(f"{platform.machine()}, python {platform.python_version()}, {packages}\n\n{table}")


if __name__ == "__main__":
    main()
