"""The views of a sample once more, in the formats to compare with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.benchmark.readers import MemmapReader, NpzReader, TorchReader, file_of
from pipeline.benchmark.sample import ViewArrays, ViewRows
from pipeline.views.types import ViewKey


def write_npz(folder: Path, content: Mapping[ViewKey, ViewArrays], *, compressed: bool) -> NpzReader:
    """One ``.npz`` file a view, below ``folder``."""
    folder.mkdir()
    save = np.savez_compressed if compressed else np.savez
    for key, arrays in content.items():
        named: dict[str, Any] = {**arrays}
        save(file_of(folder, key, "npz"), **named)
    return NpzReader(folder=folder, name=f"one .npz a view{', compressed' if compressed else ''}")


def write_pt(folder: Path, content: Mapping[ViewKey, ViewArrays]) -> TorchReader:
    """One ``.pt`` file a view, below ``folder``."""
    folder.mkdir()
    for key, arrays in content.items():
        tensors = {path: torch.from_numpy(values.copy()) for path, values in arrays.items()}
        torch.save(tensors, file_of(folder, key, "pt"))
    return TorchReader(folder=folder)


def write_memmap(folder: Path, content: Mapping[ViewKey, ViewArrays]) -> MemmapReader:
    """The rows of all views one after another, one ``.npy`` file an array, below ``folder``."""
    folder.mkdir()
    sources = {}
    for path in next(iter(content.values())):
        file = folder / f"{path.replace('/', '_')}.npy"
        np.save(file, np.concatenate([arrays[path] for arrays in content.values()]))
        sources[path] = np.load(file, mmap_mode="r")
    return MemmapReader(rows=_packed(content), sources=sources)


def bytes_of(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _packed(content: Mapping[ViewKey, ViewArrays]) -> dict[ViewKey, ViewRows]:
    """Where a view's rows are if those of all views follow one another."""
    rows = {}
    ends = {"points": 0, "main": 0, "boxes": 0}
    for key, arrays in content.items():
        lengths = {path.split("/")[0]: len(values) for path, values in arrays.items()}
        rows[key] = ViewRows(**{kind: slice(ends[kind], ends[kind] + n) for kind, n in lengths.items()})
        ends = {kind: ends[kind] + n for kind, n in lengths.items()}
    return rows
