"""Batches of an epoch, read by processes that stay small."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.core.errors import ConfigError
from pipeline.training.batches import Batch, Example, collate
from pipeline.training.files import ImageFiles
from pipeline.training.order import epoch_batches
from pipeline.training.processes import Placement
from pipeline.training.source import TargetSource
from pipeline.views.images import apply_view, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.pyramid import Pyramid, Size
from pipeline.views.types import ViewKey

StepBatches = tuple[Batch, ...]
"""What one process computes in one step: its share of the batch, in parts that fit its memory."""


@dataclass(frozen=True, kw_only=True)
class StepViews:
    """What is to be read for one step by one process."""

    parts: tuple[tuple[ViewKey, ...], ...]
    batch_hw: Size
    """Padded size of the *whole* batch, px: what is beside an image reaches its features, so that the result
    would depend on the number of processes if each padded its own part."""


@dataclass(frozen=True, kw_only=True)
class StepReader(Dataset[StepBatches]):
    """Reads, decodes and pads the views of a step."""

    files: ImageFiles
    source: TargetSource
    pyramid: Pyramid

    def __getitem__(self, views: StepViews) -> StepBatches:
        return tuple(
            collate(
                [self._example(key) for key in part],
                self.pyramid,
                views.batch_hw,
                self.source.conventions.preprocessing,
                self.source.join,
            )
            for part in views.parts
        )

    def _example(self, key: ViewKey) -> Example:
        planned, stored = self.source.load(key)
        pixels = read_image(*self.files.find(key.image_id))
        view = apply_view(pixels, planned.geometry, self.source.conventions.preprocessing)
        return Example(pixels=view, view=planned, teacher=stored)


class EpochSampler(Sampler[StepViews]):
    """The steps of the epoch that is set, as this process's views."""

    def __init__(
        self,
        source: TargetSource,
        machine: Placement,
        *,
        batch_size: int,
        seed: int,
        group_by_aspect: bool,
    ) -> None:
        self.epoch = 0
        self._source, self._batch_size, self._seed = source, batch_size, seed
        self._group_by_aspect = group_by_aspect
        self._share = machine.processes.share(batch_size)
        self._part = machine.micro_batch or batch_size

    def __len__(self) -> int:
        return len(self._source.image_ids()) // self._batch_size

    def __iter__(self) -> Iterator[StepViews]:
        for batch in epoch_batches(
            self._source, self._seed, self.epoch, self._batch_size, group_by_aspect=self._group_by_aspect
        ):
            sizes = [self._source.geometry(key).padded_hw for key in batch]
            height, width = (max(side) for side in zip(*sizes, strict=True))
            mine = batch[self._share]
            parts = tuple(tuple(mine[i : i + self._part]) for i in range(0, len(mine), self._part))
            yield StepViews(parts=parts, batch_hw=(height, width))


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Batches of an epoch; the last, incomplete one is dropped."""

    manifest: Manifest = field(repr=False)
    source: TargetSource
    pyramid: Pyramid
    batch_size: int
    seed: int
    group_by_aspect: bool
    machine: Placement

    def __post_init__(self) -> None:
        images = len(self.source.image_ids())
        if images < self.batch_size:
            raise ConfigError(
                f"batch_size: expected at most the {images} training images, but got {self.batch_size}"
            )
        self.machine.processes.share(self.batch_size)

    def __len__(self) -> int:
        return len(self._order)

    @cached_property
    def _order(self) -> EpochSampler:
        return EpochSampler(
            self.source,
            self.machine,
            batch_size=self.batch_size,
            seed=self.seed,
            group_by_aspect=self.group_by_aspect,
        )

    @cached_property
    def _loader(self) -> "DataLoader[StepBatches]":
        """One for all epochs: its processes start once, and hold no order."""
        reader = StepReader(
            files=ImageFiles.of_manifest(self.manifest), source=self.source, pyramid=self.pyramid
        )
        return DataLoader(
            reader,
            sampler=self._order,
            batch_size=None,  # a step is read whole, by one process
            num_workers=self.machine.workers,
            persistent_workers=self.machine.workers > 0,
            collate_fn=_identity,  # type: ignore[arg-type]  # without batch_size it gets one item
            pin_memory=torch.cuda.is_available(),
        )

    def epoch(self, epoch: int) -> Iterator[StepBatches]:
        """The steps of an epoch."""
        self._order.epoch = epoch
        yield from self._loader


def _identity(batches: StepBatches) -> StepBatches:
    return batches
