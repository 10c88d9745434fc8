"""Views per second from the worker processes of a data loader, however they are started."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.benchmark.readers import ViewReader
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey

START_METHODS = ("fork", "spawn", "forkserver")
BATCH_SIZE = 16
EPOCHS = 3


@dataclass(frozen=True, kw_only=True)
class LoadingRate:
    """How fast a reader feeds a training process.

    Attributes:
        reader: Its name.
        start_method: How the workers were started.
        start_seconds: From the loader's construction to its first batch.
        views_per_second: Median over the epochs after the first, by the clock on the wall.
        milliseconds_per_view: CPU of the workers in those epochs: reading, collating, handing over.
    """

    reader: str
    start_method: str
    start_seconds: float
    views_per_second: float
    milliseconds_per_view: float


@dataclass(frozen=True, kw_only=True)
class LoadedBatch:
    """What a worker hands over."""

    tensors: list[Tensor]
    views: int
    worker: int
    cpu_seconds: float
    """The worker's CPU time so far."""


@dataclass(frozen=True, kw_only=True)
class ViewContents(Dataset[list[NDArray[np.generic]]]):
    """The arrays of single views."""

    reader: ViewReader
    keys: Sequence[ViewKey]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> list[NDArray[np.generic]]:
        content = self.reader.read(self.keys[index])
        return _fields(content) if isinstance(content, StoredView) else list(content.values())


def loading_rate(
    reader: ViewReader, keys: Sequence[ViewKey], *, start_method: str, workers: int
) -> LoadingRate:
    """Start workers, and read all views with them several times; the first time does not count."""
    start = time.perf_counter()
    loader = DataLoader(
        ViewContents(reader=reader, keys=keys),
        batch_size=BATCH_SIZE,
        num_workers=workers,
        collate_fn=collate_arrays,
        multiprocessing_context=start_method,
        persistent_workers=True,
    )
    batches = iter(loader)
    next(batches)
    start_seconds = time.perf_counter() - start
    for _ in batches:
        pass
    epochs = [_epoch(loader) for _ in range(EPOCHS)]
    return LoadingRate(
        reader=reader.name,
        start_method=start_method,
        start_seconds=start_seconds,
        views_per_second=median(rate for rate, _ in epochs),
        milliseconds_per_view=median(milliseconds for _, milliseconds in epochs),
    )


def collate_arrays(views: Sequence[Sequence[NDArray[np.generic]]]) -> LoadedBatch:
    """Join each array over the views of a batch, as training does."""
    worker = get_worker_info()
    return LoadedBatch(
        tensors=[torch.from_numpy(np.concatenate(parts)) for parts in zip(*views, strict=True)],
        views=len(views),
        worker=worker.id if worker else 0,
        cpu_seconds=time.process_time(),
    )


def _epoch(loader: "DataLoader[list[NDArray[np.generic]]]") -> tuple[float, float]:
    """Views per second, and milliseconds of the workers' CPU a view."""
    start = time.perf_counter()
    batches: list[LoadedBatch] = list(loader)
    seconds = time.perf_counter() - start
    return sum(batch.views for batch in batches) / seconds, _worker_milliseconds(batches)


def _worker_milliseconds(batches: Sequence[LoadedBatch]) -> float:
    """CPU a view; from each worker's first batch to its last."""
    of_worker: Mapping[int, list[LoadedBatch]] = {batch.worker: [] for batch in batches}
    for batch in batches:
        of_worker[batch.worker].append(batch)
    seconds = sum(mine[-1].cpu_seconds - mine[0].cpu_seconds for mine in of_worker.values())
    views = sum(batch.views for mine in of_worker.values() for batch in mine[1:])
    return seconds * 1e3 / views if views else 0.0


def _fields(view: StoredView) -> list[NDArray[np.generic]]:
    points = view.view.points
    steps = [] if view.edge_steps is None else [view.edge_steps]
    return [
        *(points.level, points.position, points.main_gt, points.valuable_weight),
        *(view.edge_codes, *steps, view.cls_codes),
        *(view.view.boxes_xyxy, view.view.labels),
    ]
