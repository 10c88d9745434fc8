"""Batches of an epoch, in an order that its seed alone decides, read by processes that stay small."""

import math
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import functional

from pipeline.core.errors import ConfigError, DatasetError, PipelineError
from pipeline.core.orphans import deferred_interrupts, die_with_parent, is_stopped
from pipeline.core.progress import describe_bytes
from pipeline.training.batches import Batch, TargetSource, batch_labels
from pipeline.training.config import PhotometricConfig, TrainConfig
from pipeline.training.processes import Placement
from pipeline.views.images import apply_view, one_thread, read_image, stack_images
from pipeline.views.manifest import Manifest
from pipeline.views.pyramid import Pyramid, Size
from pipeline.views.types import LabeledView, ViewKey

if TYPE_CHECKING:
    from pipeline.training.batches import Views

StepBatches = Sequence[Batch]
"""One process's share of a step's batch, in parts that fit its memory."""

PREFETCH = 2
"""Steps that each decoding process reads ahead."""

BLUR_REACH = 3
"""A Gaussian is cut off after this many standard deviations."""

SHARED_MEMORY = Path("/dev/shm")
"""Through which decoding processes hand over what they have read (Linux)."""

PIXELS_SHARE = 0.8
"""The rest of a batch's bytes is targets and the teacher's outputs."""

DELIVERY_SECONDS = 60.0
"""A decoding process that takes longer for a step is stopped, or waits for what does not come."""


@dataclass(frozen=True, kw_only=True)
class StepViews:
    """What one process is to read for one step, to be padded to the size of the *whole* batch, px."""

    epoch: int
    parts: list[list[ViewKey]]
    batch_hw: Size


@dataclass(frozen=True, kw_only=True)
class StepReader(Dataset[StepBatches | PipelineError | OSError]):
    """Reads, decodes and pads the views of a step."""

    manifest: Manifest
    source: TargetSource
    pyramid: Pyramid
    config: TrainConfig

    def __getitem__(self, views: StepViews) -> StepBatches | PipelineError | OSError:
        """The step, or the user's error: torch would wrap one that is raised in a traceback."""
        try:
            return tuple(self._batch(keys, views) for keys in views.parts)
        except (PipelineError, OSError) as error:
            return error

    def _batch(self, keys: Sequence[ViewKey], step: StepViews) -> Batch:
        views, teacher = self.source.load(keys, self.pyramid.grid(step.batch_hw))
        pixels, sizes_hw = stack_images([self._pixels(view, step.epoch) for view in views], step.batch_hw)
        targets = batch_labels(views, step.batch_hw, self.pyramid)
        return Batch(pixels=pixels, sizes_hw=sizes_hw, targets=targets, teacher=teacher, epoch=step.epoch)

    def _pixels(self, view: LabeledView, epoch: int) -> Tensor:
        """``ByteTensor[3, H, W]``, resized and flipped, not padded."""
        image_id = view.key.image_id
        file = self.manifest.image_file(self.manifest.image(image_id))
        pixels = apply_view(read_image(*file), view.geometry, self.source.views.conventions.preprocessing)
        changed = self.source.changed_pixels(view.key, pixels.permute(1, 2, 0).numpy())
        if changed:
            raise DatasetError(
                f"{file[0]}: expected the pixels that the teacher saw, but these look {changed}; put the "
                "image back, read it with the Pillow that the store was written with, or write the store "
                "anew: `dvc repro -f cache_teacher`"
            )
        if self.config.photometric:
            pixels = augment(pixels, self.config.photometric, f"{self.config.seed}/{epoch}/{image_id}/colors")
        return pixels


def augment(pixels: Tensor, config: PhotometricConfig, key: str) -> Tensor:
    """Change the colors of ``ByteTensor[3, H, W]``, a letterbox's gray too, as is drawn from ``key`` alone.

    It moves no box, so that a store's targets hold for the result.
    """
    draw = Random(key).uniform
    with one_thread():  # more of them move last bits, and gray levels with them
        for name, neutral in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
            if amount := getattr(config, name):
                change = getattr(functional, f"adjust_{name}")
                pixels = change(pixels, draw(neutral - amount, neutral + amount))
        sigma = draw(0, config.blur)
        if radius := min(math.ceil(BLUR_REACH * sigma), min(pixels.shape[1:]) - 1):
            kernel = [2 * radius + 1] * 2
            pixels = functional.gaussian_blur(pixels, kernel, [sigma])  # type: ignore[attr-defined]
    return pixels


def epoch_batches(views: "Views", config: TrainConfig, epoch: int) -> list[list[ViewKey]]:
    """One view of every image in a random order, cut into whole batches; what is left over is dropped.

    Batches by orientation are mmdetection's (``GroupSampler``). Differs on purpose: it fills up the last ones
    with images that it has shown already; here one batch may be mixed.
    """
    generator, ids = Generator().manual_seed((config.seed << 32) + epoch), views.image_ids
    order = (ids[place] for place in torch.randperm(len(ids), generator=generator).tolist())
    keys = [ViewKey(image_id, views.choose_view(config.seed, epoch, image_id)) for image_id in order]
    if not config.group_by_aspect:
        return _cut(keys, config.batch_size)
    groups: list[list[ViewKey]] = [[], []]
    for key in keys:
        height, width = views.geometry(key).original_hw
        groups[height >= width].append(key)
    rest = [key for group in groups for key in group[len(group) // config.batch_size * config.batch_size :]]
    batches = [batch for group in (*groups, rest) for batch in _cut(group, config.batch_size)]
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def _cut(keys: list[ViewKey], batch_size: int) -> list[list[ViewKey]]:
    return [keys[i : i + batch_size] for i in range(0, len(keys) - batch_size + 1, batch_size)]


class EpochSampler(Sampler[StepViews]):
    """The steps of the epoch that is set, as this process's views."""

    def __init__(self, views: "Views", config: TrainConfig, machine: Placement) -> None:
        self.epoch = self.first = 0  # what to begin with
        self._views, self._config = views, config
        self._share = machine.processes.share(config.batch_size)
        self._part = machine.micro_batch or config.batch_size

    def __len__(self) -> int:
        return len(self._views.image_ids) // self._config.batch_size

    def __iter__(self) -> Iterator[StepViews]:
        for batch in epoch_batches(self._views, self._config, self.epoch)[self.first :]:
            sizes = [self._views.geometry(key).padded_hw for key in batch]
            height, width = (max(side) for side in zip(*sizes, strict=True))
            keys = batch[self._share]
            parts = [keys[i : i + self._part] for i in range(0, len(keys), self._part)]
            yield StepViews(epoch=self.epoch, parts=parts, batch_hw=(height, width))


class Loader:
    """Batches of an epoch; the last, incomplete one is dropped."""

    def __init__(
        self,
        source: TargetSource,
        manifest: Manifest,
        pyramid: Pyramid,
        config: TrainConfig,
        machine: Placement,
    ) -> None:
        images = len(source.views.image_ids)
        if images < config.batch_size:
            raise ConfigError(
                f"batch_size: expected at most the {images} training images, but got {config.batch_size}"
            )
        self._order = EpochSampler(source.views, config, machine)
        _require_shared_memory(self._order, machine)
        plain = replace(manifest, images=manifest.images.without_annotations())
        # One loader for all epochs: its processes start once, and hold no order.
        self._loader: DataLoader[StepBatches | PipelineError | OSError] = DataLoader(
            StepReader(manifest=plain, source=source, pyramid=pyramid, config=config),
            sampler=self._order,
            batch_size=None,  # a step is read whole, by one process
            num_workers=machine.workers,
            prefetch_factor=PREFETCH if machine.workers else None,
            persistent_workers=machine.workers > 0,
            timeout=DELIVERY_SECONDS if machine.workers else 0,
            worker_init_fn=_begin_decoding,
            pin_memory=machine.device.type == "cuda",
            generator=Generator(),  # else it would draw its processes' seeds from those of the training
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[StepBatches]:
        """The steps of an epoch from the ``first`` on; raises what reading failed of, wherever it was."""
        self._order.epoch, self._order.first = epoch, first
        with deferred_interrupts():  # the decoding processes fork here
            steps = iter(self._loader)
        for batches in steps:
            if isinstance(batches, PipelineError | OSError):
                raise batches
            yield batches


def _require_shared_memory(order: EpochSampler, machine: Placement) -> None:
    """Look before the first step: where there is too little, a decoding process dies of a bus error."""
    if not machine.workers or not SHARED_MEMORY.is_dir():
        return
    ahead = list(islice(order, machine.workers * PREFETCH + 1))
    pixels = sum(3 * len(part) * math.prod(step.batch_hw) for step in ahead for part in step.parts)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", machine.processes.count))
    needed = int(here * pixels / PIXELS_SHARE)
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise PipelineError(
            f"{SHARED_MEMORY}: expected {describe_bytes(needed)} for what decoding processes read ahead, but "
            f"{describe_bytes(free)} are free; give the container more (docker run "
            f"--shm-size={-(-2 * needed // 10**9)}g), or take fewer processes (LDP_WORKERS=0)"
        )


def _begin_decoding(_worker: int) -> None:
    """The training process's death is this one's, and an interrupt is for that one to see."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def decoding_errors() -> Iterator[None]:
    """Raise a ``PipelineError`` of one line for torch's errors about lost decoding processes."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if not reason.startswith("DataLoader"):
            raise
        for process in active_children():
            if process.pid and is_stopped(process.pid):
                os.kill(process.pid, signal.SIGCONT)  # else it would never end, and this one wait for it
        raise PipelineError(
            f"a decoding process is lost ({reason}); where memory is short take fewer (LDP_WORKERS), "
            "and run again: the training goes on from its last checkpoint"
        ) from error


def on_device(steps: Iterator[StepBatches], device: torch.device) -> Iterator[StepBatches]:
    """Copy each step to a device; on a GPU beside the step before it, which is still being computed."""
    if device.type != "cuda":
        yield from (tuple(batch.to(device) for batch in step) for step in steps)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for step in steps:
        with torch.cuda.stream(copying):
            moved = tuple(batch.to(device) for batch in step)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for batch in moved:
            batch.record_stream(computing)
        yield moved
