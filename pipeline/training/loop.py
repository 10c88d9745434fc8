"""The training loop: the same for a teacher, a plain student and a distilled one."""

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import PipelineError
from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.training.checkpoints import Checkpoint, Checkpoints, random_states, restore_random
from pipeline.training.config import TrainConfig
from pipeline.training.curve import Curve, LossRow, log_interval
from pipeline.training.dataset import Loader, decoding_errors, on_device
from pipeline.training.live import watch
from pipeline.training.pretrained import load_imagenet
from pipeline.training.processes import Placement
from pipeline.training.schedule import rate_factor
from pipeline.training.source import TargetSource
from pipeline.training.step import LossFn, TrainStep
from pipeline.training.validation import ScoreRow, Validation, is_best
from pipeline.views.conventions import Conventions
from pipeline.views.manifest import Manifest

logger = logging.getLogger(__name__)


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
class Trained:
    """A detector after its training."""

    model: GFL
    curve: list[LossRow]
    scores: list[ScoreRow]
    """Scores of the epochs after which it was validated, in the main process."""
    seconds: float
    """How long the training took, with earlier runs that were killed."""


def train(
    detector: DetectorConfig,
    source: TargetSource[Any],
    manifest: Manifest,
    loss_fn: LossFn,
    config: TrainConfig,
    *,
    machine: Placement,
    label: str,
    steps: int | None = None,
    log_every: int | None = None,
    checkpoints: Checkpoints | None = None,
    validation: Validation | None = None,
) -> Trained:
    """Train a detector, on from the newest of ``checkpoints`` if there is one.

    Args:
        detector: what to train.
        source: targets of the views; the detector takes over its conventions.
        manifest: of the training images.
        loss_fn: what is minimized.
        config: how to train.
        machine: where to train.
        label: shown beside the progress.
        steps: stops before the schedule's end; the learning rate is that of the whole schedule all the same.
        log_every: steps that a row of the loss curve is the mean of; see ``log_interval`` if not given.
        checkpoints: to go on from and to leave behind; none if not given.
        validation: see ``student.validate``; none if not given.

    Raises:
        PipelineError: the loss is not finite; the message names step and terms.
    """
    pyramid = source.conventions.pyramid(detector.strides)
    loader = Loader(manifest=manifest, source=source, pyramid=pyramid, config=config, machine=machine)
    model = build_for_training(detector, source.conventions, config, machine.device)
    per_epoch = len(loader)
    total = config.epochs * per_epoch
    total = total if steps is None else min(steps, total)
    run = _Run(model, loss_fn, loader, config, log_every or log_interval(total), validation)
    if checkpoints:
        run.restore(checkpoints, total, label)
    with watch(label, run.curve, total, config, machine) as watched, decoding_errors():
        while run.curve.step < total:
            scored = len(run.scores)
            for rate in run.epoch(total, checkpoints):
                watched.step(-(-run.curve.step // per_epoch), rate)
            watched.scores(run.scores[scored:])
    run.keep_best()
    return Trained(model=model, curve=run.curve.rows, scores=run.scores, seconds=run.seconds)


class _Run:
    """Everything that changes while a detector is trained."""

    def __init__(
        self,
        model: GFL,
        loss_fn: LossFn,
        loader: Loader,
        config: TrainConfig,
        log_every: int,
        validation: Validation | None,
    ) -> None:
        self.curve = Curve(log_every, loader.machine)
        self.scores: list[ScoreRow] = []
        self._best: dict[str, Tensor] = {}
        self._model, self._loader, self._config = model, loader, config
        self._validation = validation
        self._step = TrainStep(model, loss_fn, config, loader.machine)
        self._began = self._saved = time.monotonic()

    @property
    def _machine(self) -> Placement:
        return self._loader.machine

    @property
    def seconds(self) -> float:
        """Since the beginning, without the time in which a killed run was not running."""
        return time.monotonic() - self._began

    def epoch(self, total: int, checkpoints: Checkpoints | None) -> Iterator[float]:
        """Take the steps that are left of an epoch, but none after ``total``: one at each turn, its rate."""
        self._model.train()
        if self._config.norm_eval:
            set_norms_to_eval(self._model)
        schedule, (epoch, first) = self._config, divmod(self.curve.step, len(self._loader))
        steps = min(len(self._loader), first + total - self.curve.step)
        loaded = on_device(self._loader.epoch(epoch, first), self._machine.device)
        for step, batches in zip(range(first + 1, steps + 1), loaded, strict=False):
            rate = schedule.learning_rate * rate_factor(self.curve.step, len(self._loader), schedule)
            self.curve.add(self._step.step(batches, rate))
            if checkpoints and step < steps and self._is_due(checkpoints):
                self._save(checkpoints)
            yield rate
        self._finish_epoch(epoch + 1, checkpoints)

    def _is_due(self, checkpoints: Checkpoints) -> bool:
        """Whether to save where a row of the curve ends; for there the processes wait for one another."""
        if not self.curve.ends_row:
            return False
        passed = time.monotonic() - self._saved
        return self._machine.processes.broadcast(b"due" * (passed >= checkpoints.seconds)) == b"due"

    def _finish_epoch(self, finished: int, checkpoints: Checkpoints | None) -> None:
        """Look at losses and weights, validate, and only then replace the last checkpoint."""
        self.curve.flush()
        self._require_finite_weights()
        if self._validation and self._validation.is_due(finished, self._config.epochs):
            self._score(self._validation, finished)
        if checkpoints:
            self._save(checkpoints)

    def _save(self, checkpoints: Checkpoints) -> None:
        self._require_finite_weights()
        if self._machine.processes.is_main:
            checkpoints.save(self._checkpoint())
        self._saved = time.monotonic()

    def _score(self, validation: Validation, finished: int) -> None:
        scores = validation.score(self._model)
        if not self._machine.processes.is_main:
            return
        self.scores.append(ScoreRow(epoch=finished, scores=scores))
        if validation.keep == "best" and is_best(self.scores):
            self._best = {name: value.cpu().clone() for name, value in self._model.state_dict().items()}

    def keep_best(self) -> None:
        """Put the best epoch's weights back, where they are to be kept."""
        if self._best:
            self._model.load_state_dict(self._best)

    def _require_finite_weights(self) -> None:
        finite = torch.stack([parameter.isfinite().all() for parameter in self._model.parameters()]).all()
        if not finite:
            raise PipelineError(
                f"step {self.curve.step - 1}: expected finite weights after it, but some are not; "
                "try a lower learning_rate"
            )

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            step=self.curve.step,
            seconds=self.seconds,
            weights=dict(self._model.state_dict()),
            optimizer=self._step.optimizer.state_dict(),
            scaler=self._step.scaler.state_dict(),
            random=random_states(self._machine.device),
            curve=self.curve.state(),
            scores=[asdict(row) for row in self.scores],
            best=self._best,
        )

    def restore(self, checkpoints: Checkpoints, total: int, label: str) -> None:
        """Go on from the newest checkpoint, if there is one."""
        checkpoint = checkpoints.load(self._machine.processes)
        if checkpoint is None:
            return
        with checkpoints.explaining():
            self._model.load_state_dict(checkpoint.weights)
            self._step.optimizer.load_state_dict(checkpoint.optimizer)
            self._step.scaler.load_state_dict(checkpoint.scaler)
            restore_random(checkpoint.random, self._machine.device)
            self.curve.restore(checkpoint.curve)
            self.scores = [ScoreRow(**row) for row in checkpoint.scores]
        self._best = checkpoint.best
        self._began -= checkpoint.seconds
        logger.info("%s: going on after step %d of %d (%s)", label, checkpoint.step, total, checkpoints.path)
