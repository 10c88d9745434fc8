"""Training a teacher where no published checkpoint fits: an ordinary GFL training run."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.cache.records import PlannedView, StoredView, ViewKey
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.planning import ViewPlan
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.criterion import DetectionCriterion, Normalisers, gather_main
from pipeline.training.dataset import Loader
from pipeline.training.loop import LossRow, build_for_training, train


@dataclass(frozen=True, kw_only=True)
class AnnotationTargets:
    """Targets computed from the annotations as training goes, as every framework does."""

    plan: ViewPlan

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        return [record.image_id for record in self.plan.manifest.images]

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """The view of an image that an epoch trains on."""
        return self.plan.views.choose(seed, epoch, image_id)

    def load(self, key: ViewKey) -> tuple[PlannedView, StoredView | None]:
        """Plan the view; there are no soft targets."""
        return self.plan.plan(self.plan.manifest.by_id[key.image_id], key.view), None


def train_teacher(
    detector: DetectorConfig,
    plan: ViewPlan,
    config: TrainConfig,
    *,
    device: torch.device,
    workers: int,
) -> tuple[GFL, list[LossRow]]:
    """Train a detector from random weights; returns it with its loss curve."""
    model = build_for_training(detector, config, device)
    criterion = DetectionCriterion(detector.strides)

    def losses_of(batch: Batch) -> dict[str, Tensor]:
        raw = model(batch.images)
        main = gather_main(raw, batch.targets)
        return criterion(raw, batch.targets, main).reduce(Normalisers.of_batch(batch.targets, main))

    loader = Loader(
        manifest=plan.manifest,
        source=AnnotationTargets(plan=plan),
        strides=detector.strides,
        batch_size=config.schedule.batch_size,
        seed=config.seed,
        workers=workers,
    )
    curve = train(
        model, losses_of, loader, config.schedule, device=device, norm_eval=config.norm_eval, label="teacher"
    )
    return model, curve
