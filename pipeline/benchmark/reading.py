"""``ldp bench read``: all readers on the same views, once they have proved to read the same values."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.benchmark.copies import bytes_of, write_memmap, write_npz, write_pt
from pipeline.benchmark.generated import generate_store
from pipeline.benchmark.loading import START_METHODS, LoadingRate, loading_rate
from pipeline.benchmark.readers import (
    ViewReader,
    installed_readers,
    require_equal,
    shard_reader,
    target_reader,
    zarr_reader,
)
from pipeline.benchmark.sample import Sample, ViewArrays
from pipeline.benchmark.timing import Spread, time_readers
from pipeline.benchmark.versions import versions
from pipeline.store.reader.reader import TargetStore
from pipeline.views.types import ViewKey

LEAST_VIEWS_LOADED = 1000
"""Views in one epoch of the data loader: fewer are read before a clock on the wall says anything."""
PACKAGES = ("numpy", "torch", "zarr", "numcodecs")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """What is measured.

    Attributes:
        store: A finished store, or ``None`` to generate one.
        views: Views to read, at most.
        points: Mean number of kept points of a generated view.
        repeats: How often every reader reads every view.
        workers: World of the data loader; 0 leaves it out.
    """

    store: Path | None
    views: int
    points: int
    repeats: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class ReadingTimes:
    """What was measured.

    Attributes:
        store: Path of the store, or ``None`` if it was generated.
        views: Number of views that were read.
        points_per_view: Their mean number of kept points.
        times: CPU milliseconds a view, by reader.
        bytes_per_view: On the disk, by reader.
        loading: Rates of a data loader.
        workers: Its processes.
        machine: Processor and versions.
    """

    store: str | None
    views: int
    points_per_view: float
    times: Mapping[str, Spread]
    bytes_per_view: Mapping[str, float]
    loading: Sequence[LoadingRate]
    workers: int
    machine: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_reading(config: ReadingConfig, folder: Path) -> ReadingTimes:
    """Measure all readers that there are.

    Args:
        config: What to measure.
        folder: An empty folder for the generated store and for the copies in other formats.

    Raises:
        CacheError: The store cannot be opened, or a reader reads something else than zarr.
    """
    store = config.store or _generate(config, folder)
    stored_bytes = TargetStore.open(store).statistics["bytes_per_view"]
    sample = Sample.draw(store, config.views)
    content = dict(sample.content())
    target = target_reader(sample)
    others, sizes = _copies(folder, content)
    # Before anything reads with tensorstore or zarrs: processes that are forked after that hang or abort.
    loading = [
        _load(reader, sample, start_method, config.workers)
        for reader in (target, others[0])
        for start_method in (START_METHODS if config.workers else ())
    ]
    candidates: list[ViewReader] = [
        target,
        shard_reader(sample),
        zarr_reader(sample),
        *installed_readers(sample),
        *others,
    ]
    logger.info("comparing the values of %d readers", len(candidates))
    for key, arrays in content.items():
        for reader in candidates:
            require_equal(reader, key, arrays)
    logger.info("timing: %d repeats of %d views", config.repeats, len(content))
    times = time_readers(candidates, list(content), config.repeats, np.random.default_rng(0))
    return ReadingTimes(
        store=str(config.store) if config.store else None,
        views=len(content),
        points_per_view=sample.points_per_view,
        times=times,
        bytes_per_view={name: sizes.get(name, stored_bytes) for name in times},
        loading=loading,
        workers=config.workers,
        machine=versions(PACKAGES),
    )


def _generate(config: ReadingConfig, folder: Path) -> Path:
    logger.info("generating a store of %d views with about %d points", config.views, config.points)
    return generate_store(folder / "generated", config.views, config.points)


def _copies(
    folder: Path, content: Mapping[ViewKey, ViewArrays]
) -> tuple[Sequence[ViewReader], Mapping[str, float]]:
    """The readers of the other formats, and their bytes a view by name."""
    logger.info("writing %d views in other formats", len(content))
    readers: dict[str, ViewReader] = {
        "npz": write_npz(folder / "npz", content, compressed=False),
        "npz_compressed": write_npz(folder / "npz_compressed", content, compressed=True),
        "pt": write_pt(folder / "pt", content),
        "memmap": write_memmap(folder / "memmap", content),
    }
    sizes = {reader.name: bytes_of(folder / name) / len(content) for name, reader in readers.items()}
    return list(readers.values()), sizes


def _load(reader: ViewReader, sample: Sample, start_method: str, workers: int) -> LoadingRate:
    logger.info("loading with %s: %d workers by %s", reader.name, workers, start_method)
    keys = list(sample.rows)
    keys = keys * -(-LEAST_VIEWS_LOADED // len(keys))
    return loading_rate(reader, keys, start_method=start_method, workers=workers)
