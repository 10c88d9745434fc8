"""A student's training step, the three ways: the step alone, with its data loader, and its memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice

import numpy as np
import torch
from msgspec.structs import replace

from pipeline.benchmark.memory import peak_bytes
from pipeline.benchmark.rounds import Repeats, ShowRounds, now, take_turns
from pipeline.benchmark.ways import Way
from pipeline.student.config import StudentConfig
from pipeline.student.train import student_losses
from pipeline.training.batches import Batch, batch_labels
from pipeline.training.dataset import Loader, StepBatches
from pipeline.training.loop import build_for_training
from pipeline.training.processes import Placement
from pipeline.training.step import TrainStep
from pipeline.views.conventions import Conventions
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.pyramid import Size
from pipeline.views.types import ViewKey

NO_RATE = 0.0
"""The same step is taken again and again; random weights should not run away."""


@dataclass(frozen=True, kw_only=True)
class StepSeconds:
    """One step."""

    targets: float
    """To assign, to read, or to ask the teacher; and to bring the targets to the device."""
    update: float
    """Forward pass, losses, backward pass and optimizer."""


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """One way's steps."""

    targets: Repeats
    update: Repeats
    total: Repeats
    loaded: Repeats
    """Of a step in a run of steps that the data loader feeds; what it can do meanwhile costs nothing."""
    peak_bytes: int | None
    """Of device memory in a step, beyond what lies there between steps."""


class StudentSteps:
    """A student with random weights, and the images that it is trained on."""

    def __init__(
        self, config: StudentConfig, conventions: Conventions, manifest: Manifest, machine: Placement
    ) -> None:
        """Build the student; ``config`` gives the batch size."""
        train = replace(config.train, pretrained=False)
        model = build_for_training(config.detector, conventions, train, machine.device)
        model.train()
        self._stepper = TrainStep(model, student_losses(config, conventions), train, machine)
        self._config, self._conventions = config, conventions
        self._pyramid = conventions.pyramid(config.detector.strides)
        self._manifest, self._machine = manifest, machine

    @property
    def _device(self) -> torch.device:
        return self._machine.device

    def time(self, ways: tuple[Way, ...], rounds: int, steps: int, show: ShowRounds) -> dict[str, StepTimes]:
        """Measure all ways, in turns.

        Args:
            ways: To have the targets.
            rounds: Steps alone of each way, and runs of steps with the loader.
            steps: Of such a run.
            show: Shows the rounds.
        """
        alone = _Alone(self, ways[0], self._config.train.batch_size)
        rng = np.random.default_rng(0)
        timed = take_turns(
            {way.name: partial(alone.time, way) for way in ways},
            rounds,
            rng,
            show,
            "step alone",
        )
        loaded = take_turns(
            {way.name: partial(self._time_loaded, way, steps) for way in ways},
            rounds,
            rng,
            show,
            "with loading",
        )
        return {
            way.name: _step_times(
                timed[way.name], loaded[way.name], peak_bytes(partial(alone.time, way), self._device)
            )
            for way in ways
        }

    def take(self, batch: Batch) -> None:
        """One step."""
        self._stepper.step((batch,), NO_RATE)

    def first_keys(self, way: Way, images: int) -> list[ViewKey]:
        """Views of the first images of an epoch."""
        seed = self._config.train.seed
        return [ViewKey(i, way.source.choose_view(seed, 0, i)) for i in way.source.image_ids()[:images]]

    def decode(self, keys: list[ViewKey], way: Way) -> tuple[torch.Tensor, Size]:
        """Images ``Tensor[B, 3, H, W]`` on the device, and their padded size."""
        preprocessing = self._conventions.preprocessing
        geometries = [way.source.geometry(key) for key in keys]
        height, width = (max(side) for side in zip(*(g.padded_hw for g in geometries), strict=True))
        pixels = []
        for key, geometry in zip(keys, geometries, strict=True):
            record = self._manifest.image(key.image_id)
            image = read_image(*self._manifest.image_file(record))
            pixels.append(apply_view(image, geometry, preprocessing))
        images = batch_images(pixels, [(height, width)], preprocessing)
        return images.to(self._device, memory_format=torch.channels_last), (height, width)

    def targets_of(self, way: Way, keys: list[ViewKey], images: torch.Tensor, batch_hw: Size) -> Batch:
        """The batch of some views, with their targets as one way has them."""
        planned, stored = zip(*(way.source.load(key) for key in keys), strict=True)
        soft = None if stored[0] is None else way.source.join(stored).to(self._device)
        targets = batch_labels(planned, batch_hw, self._pyramid).to(self._device)
        return way.complete(Batch(images=images, targets=targets, teacher=soft))

    def now(self) -> float:
        """Seconds, once the device is done."""
        return now(self._device)

    def _time_loaded(self, way: Way, steps: int) -> float:
        """Seconds a step; the first step waits for the loader's processes to start, and does not count."""
        batches = self._load(way)
        for (batch,) in islice(batches, 1 if self._machine.workers else 0):
            self._take_loaded(way, batch)
        start = self.now()
        for (batch,) in islice(batches, steps):
            self._take_loaded(way, batch)
        return (self.now() - start) / steps

    def _take_loaded(self, way: Way, batch: Batch) -> None:
        self.take(way.complete(batch.to(self._device)))

    def _load(self, way: Way) -> Iterator[StepBatches]:
        train = self._config.train
        loader = Loader(
            manifest=self._manifest,
            source=way.source,
            pyramid=self._pyramid,
            batch_size=train.batch_size,
            seed=train.seed,
            group_by_aspect=train.group_by_aspect,
            machine=self._machine,
        )
        for _ in count():
            yield from loader.epoch(0)


class _Alone:
    """Steps on one batch whose images are on the device already."""

    def __init__(self, steps: StudentSteps, way: Way, batch_size: int) -> None:
        self._steps = steps
        self._keys = steps.first_keys(way, batch_size)
        self._images, self._batch_hw = steps.decode(self._keys, way)

    def time(self, way: Way) -> StepSeconds:
        start = self._steps.now()
        batch = self._steps.targets_of(way, self._keys, self._images, self._batch_hw)
        begun = self._steps.now()
        self._steps.take(batch)
        return StepSeconds(targets=begun - start, update=self._steps.now() - begun)


def _step_times(alone: list[StepSeconds], loaded: list[float], peak: int | None) -> StepTimes:
    return StepTimes(
        targets=Repeats.of([step.targets for step in alone]),
        update=Repeats.of([step.update for step in alone]),
        total=Repeats.of([step.targets + step.update for step in alone]),
        loaded=Repeats.of(loaded),
        peak_bytes=peak,
    )
