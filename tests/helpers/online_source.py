"""The teacher in the training loop: what the store replaces, kept to compare with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.store.reader.stored import StoredDense
from pipeline.student.teacher_batch import ExactTeacherBatch, dense_teacher
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.batches import TeacherBatch, concat_to_tensor
from pipeline.training.label_source import LabelSource
from pipeline.views.pyramid import Grid, Size
from pipeline.views.types import LabeledView, SoftTargets, ViewKey


@dataclass(frozen=True, kw_only=True)
class OnlineSource(LabelSource):
    """Targets that are computed for every view of every epoch: regions anew, the teacher run again.

    Each view runs by itself, with its own padding, as a store of ``batch_size: 1`` holds it.
    """

    teacher: LogitExtractor

    def load(self, key: ViewKey) -> tuple[LabeledView, SoftTargets]:
        """The view, and the teacher run on it."""
        labeled, _ = super().load(key)
        (outputs,) = self.teacher.run([labeled])
        return labeled, outputs

    def collate(self, outputs: Sequence[SoftTargets], padded_hw: Sequence[Size], grid: Grid) -> TeacherBatch:
        """Logits of a batch, one view after another."""
        dense = [
            StoredDense(classes=view.dense.classes, distances=view.dense.distances, scores=None)
            for view in outputs
            if view.dense
        ]
        return ExactTeacherBatch(
            dense=dense_teacher(dense, padded_hw, grid) if dense else None,
            edges=concat_to_tensor([view.edge_logits for view in outputs], np.float32),
            classes=concat_to_tensor([view.cls_logits for view in outputs], np.float32),
        )
