"""Views of images, epoch by epoch, in an order that depends on the seed alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.cache.records import PlannedView, StoredView, ViewKey
from pipeline.data.images import apply_view, read_image
from pipeline.data.manifest import Manifest
from pipeline.errors import ConfigError
from pipeline.training.batches import Batch, Example, collate


class TargetSource(Protocol):
    """Where a view's targets come from: a store, or the annotations."""

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ...

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """Number of the view of an image that an epoch trains on."""
        ...

    def load(self, key: ViewKey) -> tuple[PlannedView, StoredView | None]:
        """Targets of one view, with soft targets if the source has them."""
        ...


@dataclass(frozen=True, kw_only=True)
class EpochViews(Dataset[Example]):
    """The views of one epoch: one view of every image."""

    manifest: Manifest
    source: TargetSource
    keys: Sequence[ViewKey]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Example:
        key = self.keys[index]
        planned, stored = self.source.load(key)
        record = self.manifest.by_id[key.image_id]
        pixels = read_image(self.manifest.image_path(record), (record.height, record.width))
        return Example(pixels=apply_view(pixels, planned.geometry), planned=planned, stored=stored)


def epoch_keys(source: TargetSource, seed: int, epoch: int) -> list[ViewKey]:
    """One view of every image in a random order; both depend on ``(seed, epoch)`` alone."""
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    ids = source.image_ids()
    order = torch.randperm(len(ids), generator=generator).tolist()
    return [
        ViewKey(image_id, source.choose_view(seed, epoch, image_id))
        for image_id in (ids[place] for place in order)
    ]


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Batches of an epoch; the last, incomplete one is dropped."""

    manifest: Manifest
    source: TargetSource
    strides: tuple[int, ...]
    batch_size: int
    seed: int
    workers: int

    def __post_init__(self) -> None:
        images = len(self.source.image_ids())
        if images < self.batch_size:
            raise ConfigError(
                f"batch_size: expected at most the {images} training images, but got {self.batch_size}"
            )

    def __len__(self) -> int:
        return len(self.source.image_ids()) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches of an epoch."""
        keys = epoch_keys(self.source, self.seed, epoch)
        dataset = EpochViews(manifest=self.manifest, source=self.source, keys=keys)
        loader = DataLoader(
            dataset,
            batch_size=self.batch_size,
            drop_last=True,
            num_workers=self.workers,
            collate_fn=partial(collate, strides=self.strides),
            pin_memory=torch.cuda.is_available(),
        )
        yield from loader
