"""The teacher in the training loop: what the store replaces, kept to compare with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.store.reader.stored import StoredDense
from pipeline.student.targets import TeacherBatch, dense_teacher
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.batches import TargetSource, concat_to_tensor
from pipeline.views.pyramid import Grid
from pipeline.views.types import LabeledView, ViewKey


@dataclass(frozen=True, kw_only=True)
class OnlineSource(TargetSource):
    """Targets that are computed for every view of every epoch: regions anew, the teacher run again.

    Each view runs by itself, with its own padding, as a store of ``batch_size: 1`` holds it.
    """

    teacher: LogitExtractor

    def load(self, keys: Sequence[ViewKey], grid: Grid) -> tuple[list[LabeledView], TeacherBatch]:
        """The views, and the teacher run on each."""
        views, _ = super().load(keys, grid)
        outputs = [output for view in views for output in self.teacher.run([view])]
        dense = [
            StoredDense(classes=view.dense.classes, distances=view.dense.distances, scores=None)
            for view in outputs
            if view.dense
        ]
        sizes = [view.geometry.padded_hw for view in views]
        return views, TeacherBatch(
            dense=dense_teacher(dense, sizes, grid) if dense else None,
            edges=concat_to_tensor([view.edge_logits for view in outputs], np.float32),
            classes=concat_to_tensor([view.cls_logits for view in outputs], np.float32),
        )
