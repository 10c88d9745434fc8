"""Three ways to the targets of a student's step: plain, the teacher in the loop, and from a store."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.detector.model import BoxModel
from pipeline.regions.atss import assign_atss, nearest_candidates
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.source import StoreSource, planned_epochs
from pipeline.training.batches import Batch, TensorData
from pipeline.training.source import TargetSource
from pipeline.training.teacher import LabelSource
from pipeline.views.geometry import transform_boxes
from pipeline.views.manifest import training_boxes
from pipeline.views.pyramid import Grid
from pipeline.views.types import KeptPoints, LabeledView, ViewKey

PLAIN, ONLINE, STORED = "plain, assigned on the fly", "LD, teacher in the loop", "LD, from the store"


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where the targets of a batch come from."""

    name: str
    source: TargetSource
    teacher: BoxModel | None
    """Runs on every batch where it is in the loop."""

    def complete(self, batch: Batch) -> Batch:
        """The batch with what the teacher in the loop says of it, if there is one."""
        if self.teacher is None:
            return batch
        return Batch(images=batch.images, targets=batch.targets, teacher=ask(self.teacher, batch))


def ways(plan: ViewSet, teacher: BoxModel, store: TargetStore) -> tuple[Way, Way, Way]:
    """All three, for the same views."""
    stored = StoreSource(store=store, read_logits=True, epochs=planned_epochs(store.fingerprint))
    return (
        Way(name=PLAIN, source=AssignedTargets(view_set=plan), teacher=None),
        Way(name=ONLINE, source=LabelSource(view_set=plan), teacher=teacher),
        Way(name=STORED, source=stored, teacher=None),
    )


@dataclass(frozen=True, kw_only=True)
class AssignedTargets(LabelSource):
    """What a plain student needs, found anew for every view: the main region without the valuable one."""

    def load(self, key: ViewKey) -> tuple[LabeledView, None]:
        """Assign the view's points to its boxes."""
        record = self.view_set.manifest.image(key.image_id)
        truth = training_boxes(record, self.view_set.manifest.labels)
        geometry = self.view_set.geometry(key)
        boxes = transform_boxes(truth.boxes_xyxy, geometry)
        planned = LabeledView(
            key=key,
            geometry=geometry,
            boxes_xyxy=boxes,
            labels=truth.labels,
            points=_main_points(self.view_set.pyramid.grid(geometry.padded_hw), torch.from_numpy(boxes)),
        )
        return planned, None


def _main_points(grid: Grid, boxes_xyxy: Tensor) -> KeptPoints:
    nearest = nearest_candidates(grid, boxes_xyxy)
    gt_index = assign_atss(torch.from_numpy(grid.anchors), nearest, boxes_xyxy).gt_index.numpy()
    (kept,) = np.nonzero(gt_index >= 0)
    level, position = grid.unflatten(kept)
    return KeptPoints(
        level=level,
        position=position,
        main_gt=gt_index[kept],
        valuable_weight=np.zeros(len(kept), np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class LiveTargets(TensorData):
    """What a teacher has just said at a batch's points; a ``TeacherBatch``."""

    edges: Tensor
    """``Tensor[P, 4, bins]``."""
    classes: Tensor
    """``Tensor[M, C]``."""

    def edge_logits(self) -> Tensor:
        """``Tensor[P, 4, bins]``."""
        return self.edges

    def cls_logits(self) -> Tensor:
        """``Tensor[M, C]``."""
        return self.classes


@torch.no_grad()
def ask(teacher: BoxModel, batch: Batch) -> LiveTargets:
    """Run a teacher on a batch as it is padded, and select its points."""
    raw = teacher(batch.images.to(teacher.device))
    targets = batch.targets
    main_image, main_index = targets.image[targets.main], targets.index[targets.main]
    return LiveTargets(
        edges=raw.edge_logits[targets.image, targets.index].float(),
        classes=raw.cls_logits[main_image, main_index].float(),
    )
