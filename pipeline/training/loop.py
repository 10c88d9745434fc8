"""The training loop: the same for a teacher, a plain student and a distilled one."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pipeline.core.errors import PipelineError
from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.training.batches import TargetSource
from pipeline.training.checkpoints import Checkpoints, State
from pipeline.training.config import TrainConfig
from pipeline.training.curves import SCORES, Curve, Rows, Scores, log_interval, watch
from pipeline.training.dataset import Loader, decoding_errors, on_device
from pipeline.training.pretrained import load_imagenet
from pipeline.training.processes import Placement
from pipeline.training.step import Distill, TrainStep
from pipeline.views.conventions import Conventions
from pipeline.views.manifest import Manifest

STEP_GAMMA, WARMUP_START = 0.1, 0.001
"""Factors at each milestone of the ``step`` decay, and of the first warm-up step: mmdetection's."""

logger = logging.getLogger(__name__)


def rate_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Learning rate of a step as a fraction of the base rate: linear warm-up, then the decay."""
    warmup = 1.0
    if step < config.warmup_steps:
        warmup = WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps
    if config.decay == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch))) / 2
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return warmup * STEP_GAMMA**passed


def build_for_training(
    detector: DetectorConfig, conventions: Conventions, config: TrainConfig, device: torch.device
) -> GFL:
    """A detector before its first step: seeded, pretrained and frozen as asked for."""
    torch.manual_seed(config.seed)
    model = GFL(detector, conventions)
    if config.pretrained:
        load_imagenet(model.backbone, detector.backbone)
    freeze_stages(model.backbone, config.frozen_stages)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When a model is scored, by what, and which weights are kept."""

    score: Callable[[GFL], Scores]
    """Called by all processes; what the main one gets is recorded."""
    every: int
    """Epochs; the last one counts in any case."""
    keep: Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A detector after its training."""

    model: GFL
    curve: Rows
    scores: dict[int, Scores]
    """By finished epochs; in the main process alone."""
    seconds: float
    """With those of earlier runs that were killed."""


def train(
    detector: DetectorConfig,
    source: TargetSource,
    manifest: Manifest,
    config: TrainConfig,
    distill: Distill | None = None,
    *,
    machine: Placement,
    label: str,
    checkpoints: Checkpoints | None = None,
    validation: Validation | None = None,
) -> Trained:
    """Train a detector, on from the newest of ``checkpoints`` if there is one.

    Args:
        detector: what to train; it takes over the conventions of the ``source``.
        source: targets of views of the manifest's images.
        distill: what is minimized beside the detection losses.
        label: shown beside the progress.
        checkpoints: to go on from, and to leave behind.
        validation: between epochs.

    Raises:
        PipelineError: a loss or a weight is not finite; the message names the step.
    """
    conventions = source.views.conventions
    loader = Loader(source, manifest, conventions.pyramid(detector.strides), config, machine)
    model = build_for_training(detector, conventions, config, machine.device)
    step = TrainStep(model, distill, config, machine)
    total = config.epochs * len(loader)
    curve = Curve(log_interval(total), machine)
    run = _Run(model, step, loader, config, machine, curve, checkpoints, validation)
    if checkpoints and run.restore(checkpoints):
        logger.info("%s: going on after step %d of %d (%s)", label, curve.step, total, checkpoints.path)
    with watch(label, curve, total, config, machine) as watched, decoding_errors():
        while curve.step < total:
            epoch = curve.step // len(loader) + 1
            for rate in run.epoch():
                watched.step(epoch, rate)
            if epoch in run.scores:
                watched.scores(epoch, run.scores[epoch])
    if run.best:
        model.load_state_dict(run.best)
    return Trained(model=model, curve=curve.rows, scores=run.scores, seconds=time.monotonic() - run.began)


@dataclass
class _Run:
    """Everything that changes while a detector is trained."""

    model: GFL
    train_step: TrainStep
    loader: Loader
    config: TrainConfig
    machine: Placement
    curve: Curve
    checkpoints: Checkpoints | None
    validation: Validation | None
    scores: dict[int, Scores] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights of the best epoch, if they are to be kept."""
    began: float = field(default_factory=time.monotonic)
    """Moved back by the seconds of earlier runs."""
    saved: float = field(default_factory=time.monotonic)

    def epoch(self) -> Iterator[float]:
        """Take the steps that are left of an epoch: one at each turn, its learning rate."""
        self.model.train()
        set_norms_to_eval(self.model, frozen_only=not self.config.norm_eval)
        steps = len(self.loader)
        epoch, first = divmod(self.curve.step, steps)
        for batches in on_device(self.loader.epoch(epoch, first), self.machine.device):
            rate = self.config.learning_rate * rate_factor(self.curve.step, steps, self.config)
            self.curve.add(self.train_step.step(batches, rate))
            # Only where a row of the curve ends, for there the processes wait for one another.
            if self.checkpoints and self.curve.ends_row and self.curve.step % steps:
                due = b"due" * (time.monotonic() - self.saved >= self.checkpoints.seconds)
                if self.machine.processes.broadcast(due):
                    self._save()
            yield rate
        self.curve.flush()
        self._validate(epoch + 1)
        self._save()

    def _validate(self, finished: int) -> None:
        """Score the model after an epoch, if it is due, and keep the best weights."""
        validation = self.validation
        if validation is None or (finished % validation.every and finished != self.config.epochs):
            return
        self._require_finite_weights()
        scores = validation.score(self.model)
        if not self.machine.processes.is_main:
            return
        self.scores[finished] = scores
        *earlier, newest = [row[SCORES[0]] or 0.0 for row in self.scores.values()]
        if validation.keep == "best" and all(newest > score for score in earlier):
            self.best = {name: value.cpu().clone() for name, value in self.model.state_dict().items()}

    def _require_finite_weights(self) -> None:
        if not torch.stack([weights.isfinite().all() for weights in self.model.parameters()]).all():
            raise PipelineError(
                f"step {self.curve.step - 1}: expected finite weights after it, but some are not; "
                "try a lower learning_rate"
            )

    def _save(self) -> None:
        """Replace the last checkpoint, but by nothing that is not finite."""
        self._require_finite_weights()
        if self.checkpoints and self.machine.processes.is_main:
            self.checkpoints.save(self._state())
        self.saved = time.monotonic()

    def _state(self) -> State:
        """Orders and colors depend on the seed and the curve's step alone, and a step draws no number."""
        return {
            "seconds": time.monotonic() - self.began,
            "weights": dict(self.model.state_dict()),
            "optimizer": self.train_step.optimizer.state_dict(),
            "scaler": self.train_step.scaler.state_dict(),
            "curve": self.curve.state(),
            "scores": self.scores,
            "best": self.best,
        }

    def restore(self, checkpoints: Checkpoints) -> bool:
        """Whether there was a checkpoint to go on from."""
        state = checkpoints.load(self.machine.processes)
        if state is None:
            return False
        with checkpoints.explaining():
            self.model.load_state_dict(state["weights"])
            self.train_step.optimizer.load_state_dict(state["optimizer"])
            self.train_step.scaler.load_state_dict(state["scaler"])
            self.curve.restore(state["curve"])
            self.scores = {**state["scores"]}
            self.best = state["best"]
            self.began -= state["seconds"]
        return True
