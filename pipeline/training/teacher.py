"""Training a teacher where no published checkpoint fits: an ordinary GFL training run."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.detector.config import DetectorConfig
from pipeline.detector.head import RawOutputs
from pipeline.regions.view_set import ViewSet
from pipeline.training.batches import Batch, TeacherBatch
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.config import TrainConfig
from pipeline.training.criterion import DetectionCriterion, LossNormalizers, MainPoints
from pipeline.training.loop import Trained, train
from pipeline.training.processes import Placement
from pipeline.training.step import Terms
from pipeline.views.conventions import Conventions
from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import LabeledView, ViewKey


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Targets computed from the annotations as training goes, as every framework does."""

    view_set: ViewSet

    @property
    def conventions(self) -> Conventions:
        """Conventions of the view set."""
        return self.view_set.conventions

    def image_ids(self) -> Sequence[int]:
        """Images that are trained on, ascending."""
        ids: list[int] = self.view_set.manifest.images.image_id.tolist()
        return ids

    def choose_view(self, seed: int, epoch: int, image_id: int) -> int:
        """The view of an image that an epoch trains on."""
        return self.view_set.views.choose(seed, epoch, image_id)

    def geometry(self, key: ViewKey) -> ViewGeometry:
        """Geometry of one view."""
        return self.view_set.geometry(key)

    def load(self, key: ViewKey) -> tuple[LabeledView, None]:
        """Find the points of the view; there is no teacher."""
        return self.view_set.view(key), None

    def collate(self, outputs: Sequence[None]) -> TeacherBatch:
        """Never called: no view has a teacher's outputs."""
        raise AssertionError(f"expected no teacher's outputs, but got {len(outputs)}")


def train_teacher(
    detector: DetectorConfig,
    view_set: ViewSet,
    config: TrainConfig,
    *,
    machine: Placement,
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train a detector from random weights, on from the newest of ``checkpoints`` if there is one."""
    criterion = DetectionCriterion()

    def losses_of(raw: RawOutputs, batch: Batch, main: MainPoints, normalizers: LossNormalizers) -> Terms:
        return criterion(raw, batch.targets, main).reduce(normalizers)

    source, manifest = LabelSource(view_set=view_set), view_set.manifest
    return train(
        detector,
        source,
        manifest,
        losses_of,
        config,
        machine=machine,
        label="teacher",
        checkpoints=checkpoints,
    )
