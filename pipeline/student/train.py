"""Training a student from cached soft targets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.cache.reader import TargetStore
from pipeline.data.manifest import Manifest
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.student.distillation import DistillationConfig, distillation_losses
from pipeline.student.source import StoredTargets, require_fit
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.criterion import DetectionCriterion, Normalisers, gather_main
from pipeline.training.dataset import Loader
from pipeline.training.loop import LossRow, StepLosses, build_for_training, train


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """One student: what it is, how it is trained, what it is taught."""

    detector: DetectorConfig
    train: TrainConfig
    loss: DistillationConfig


def train_student(
    config: StudentConfig,
    store: TargetStore,
    manifest: Manifest,
    *,
    device: torch.device,
    workers: int,
    label: str,
) -> tuple[GFL, list[LossRow]]:
    """Train a student; assignment and soft targets come from the store.

    Returns:
        The student and its loss curve.

    Raises:
        CacheError: the store does not fit the student or the dataset.
    """
    require_fit(store.fingerprint, config.detector, manifest)
    model = build_for_training(config.detector, config.train, device)
    loader = Loader(
        manifest=manifest,
        source=StoredTargets(store=store, with_teacher=config.loss.reads_teacher),
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
