"""The teacher at every position as stored, against the live one, as BCKD's terms see it.

Both terms have a kink where student and teacher agree: there the smallest error of the target turns a
gradient *by the student's logits* over. Bounded are the loss, and the gradient of a last layer, which sums
positions up: here a linear one on the teacher's logits and a constant, for not every teacher shows features.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from pipeline.fidelity.fidelity import STUDENT_NOISE, DenseFidelity, ratio
from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.extractor import LogitExtractor
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import ViewKey

_Term = tuple[Tensor, Tensor]
"""A term of one view: ``Tensor[n]``, its value at each position, and ``Tensor[n, K]``, its gradient by the
student's logits."""


def measure_dense(
    store: TargetStore, view_set: ViewSet, teacher: LogitExtractor, seed: int, keys: Sequence[ViewKey]
) -> DenseFidelity:
    """Run the teacher again on stored views and compare, view by view."""
    assert store.schema.dense is not None, "the store has dense arrays"
    floor, generator = store.schema.dense.floor, torch.Generator().manual_seed(seed)
    figures: list[list[Tensor]] = []
    for batch in teacher.batches([view_set.view(key) for key in keys]):
        raw = teacher.outputs_of(batch)
        for number, view in enumerate(batch.views):
            logits, edges = (each[number].float().cpu() for each in (raw.cls_logits, raw.edge_logits))
            student = [
                each + STUDENT_NOISE * torch.randn(each.shape, generator=generator)
                for each in (logits, edges)
            ]
            dense = store.read_dense(view.key)
            scores = None if dense.scores is None else torch.from_numpy(dense.scores)
            exact = _terms(student, logits, None, expected_distances(edges))
            distances = torch.from_numpy(dense.edge_distances())
            stored = _terms(student, torch.from_numpy(dense.classes), scores, distances)
            features = torch.cat([torch.ones(len(logits), 1), logits, edges.flatten(1)], dim=1)
            below = exact[1][0][logits.sigmoid().amax(dim=1) < floor].sum()
            of_view = [below]
            for (new, gradient), (old, true) in zip(stored, exact, strict=True):
                of_view += [new.sum() - old.sum(), old.sum()]
                of_view += [features.T @ (gradient - true), features.T @ true]
            figures.append([value.double() for value in of_view])
    below_floor, *totals = (reduce(torch.add, values) for values in zip(*figures, strict=True))
    errors = [ratio(off.norm(), exact.norm()) for off, exact in zip(totals[::2], totals[1::2], strict=True)]
    errors.append(ratio(below_floor, totals[5]))
    return DenseFidelity(*errors)


def _terms(
    student: Sequence[Tensor], classes: Tensor, scores: Tensor | None, distances: Tensor
) -> tuple[_Term, _Term]:
    """Class and box term of one view, of a student's class logits and edge logits."""
    logits, edges = (each.clone().requires_grad_() for each in student)
    cls, weight = (each[0] for each in bckd_cls_loss(logits[None], classes[None], scores))
    box = bckd_box_loss(expected_distances(edges), distances) * weight
    (cls_gradient,) = torch.autograd.grad(cls.sum(), logits)
    (box_gradient,) = torch.autograd.grad(box.sum(), edges)
    return (cls.detach(), cls_gradient), (box.detach(), box_gradient.flatten(1))
