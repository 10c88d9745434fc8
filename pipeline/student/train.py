"""Training a student from cached soft targets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.cache.reader import TargetStore
from pipeline.data.manifest import Manifest
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.student.distillation import DistillationConfig, distillation_losses
from pipeline.student.source import StoredTargets, planned_epochs, require_epochs, require_fit
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.criterion import DetectionCriterion, Normalisers, gather_main
from pipeline.training.dataset import Loader, TargetSource
from pipeline.training.loop import LOG_EVERY_STEPS, LossRow, StepLosses, build_for_training, train


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """One student: what it is, how it is trained, what it is taught."""

    detector: DetectorConfig
    train: TrainConfig
    loss: DistillationConfig


def stored_targets(config: StudentConfig, store: TargetStore, manifest: Manifest) -> StoredTargets:
    """A student's targets from a store that fits it.

    Raises:
        CacheError: the store does not fit the student or the dataset.
        ConfigError: the student trains for more epochs than the store has views for.
    """
    require_fit(store.fingerprint, config.detector, manifest)
    require_epochs(store.fingerprint, config.train.schedule.epochs)
    return StoredTargets(
        store=store,
        with_teacher=config.loss.reads_teacher,
        epochs=planned_epochs(store.fingerprint),
    )


def train_student(
    config: StudentConfig,
    source: TargetSource,
    manifest: Manifest,
    *,
    device: torch.device,
    workers: int,
    label: str,
    steps: int | None = None,
    log_every: int = LOG_EVERY_STEPS,
) -> tuple[GFL, list[LossRow]]:
    """Train a student; assignment and soft targets come from ``source``.

    Args:
        config: of the student.
        source: :func:`stored_targets`, or the teacher in the loop for comparison.
        manifest: of the training images.
        device: to train on.
        workers: processes that decode images.
        label: shown beside the progress.
        steps: stop after so many; the schedule's own number if not given.
        log_every: steps that a row of the loss curve is the mean of.

    Returns:
        The student and its loss curve.
    """
    model = build_for_training(config.detector, config.train, device)
    loader = Loader(
        manifest=manifest,
        source=source,
        strides=config.detector.strides,
        batch_size=config.train.schedule.batch_size,
        seed=config.train.seed,
        workers=workers,
    )
    return model, train(
        model,
        student_losses(model, config),
        loader,
        config.train.schedule,
        device=device,
        norm_eval=config.train.norm_eval,
        label=label,
        steps=steps,
        log_every=log_every,
    )


def student_losses(model: GFL, config: StudentConfig) -> StepLosses:
    """The loss terms of a batch: detection, and distillation where the batch has soft targets."""
    criterion = DetectionCriterion(config.detector.strides)

    def losses_of(batch: Batch) -> dict[str, Tensor]:
        raw = model(batch.images)
        main = gather_main(raw, batch.targets)
        normalisers = Normalisers.of_batch(batch.targets, main)
        terms = criterion(raw, batch.targets, main).reduce(normalisers)
        if batch.soft is not None:
            losses = distillation_losses(raw, batch.targets, batch.soft, main, config.loss)
            terms |= losses.reduce(config.loss, normalisers)
        return terms

    return losses_of
