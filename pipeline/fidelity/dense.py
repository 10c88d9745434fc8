"""The teacher at every position as stored, against the live one, as BCKD's terms see it.

Both terms have a kink where student and teacher agree. There an error of the target, however small, turns a
gradient of finite size over, so that no quantized store comes near the exact gradient *by the student's
logits*. Bounded are the loss, and the gradient of a last layer, in which the positions are summed up: here a
linear layer on the teacher's own logits and a constant, for not every teacher shows its features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.core.errors import CacheError
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.loss_error import STUDENT_NOISE
from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.extractor import LogitExtractor
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import ViewKey


@dataclass(frozen=True, kw_only=True)
class DenseFidelity:
    """Relative errors over all positions of the sampled views; the student is the teacher with noise."""

    bckd_cls_loss_error: float
    bckd_cls_last_layer_error: float
    """Of the gradient by the weights of a last layer."""
    bckd_cls_gradient_error: float
    """Of the gradient by the student's logits; has no bound."""
    bckd_box_loss_error: float
    bckd_box_last_layer_error: float
    bckd_box_gradient_error: float
    box_share_below_floor: float
    """Share of the exact box loss at positions all of whose scores are below the floor."""


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A term of one view."""

    points: Tensor
    """``Tensor[n]``, its value at each position."""
    gradient: Tensor
    """``Tensor[n, K]``, by the student's logits."""

    def figures(self, exact: "_Term", features: Tensor) -> list[Tensor]:
        """What :func:`_errors` needs of a view, to be summed over views."""
        return [
            self.points.sum() - exact.points.sum(),
            exact.points.sum(),
            features.T @ (self.gradient - exact.gradient),
            features.T @ exact.gradient,
            (self.gradient - exact.gradient).square().sum(),
            exact.gradient.square().sum(),
        ]


def measure_dense(
    store: TargetStore, view_set: ViewSet, teacher: LogitExtractor, seed: int, keys: Sequence[ViewKey]
) -> DenseFidelity:
    """Run the teacher again on stored views and compare, view by view."""
    assert store.schema.dense is not None, "the store has dense arrays"
    floor, generator = store.schema.dense.precision.floor, torch.Generator().manual_seed(seed)
    sums: list[list[Tensor]] = []
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
            below = exact[1].points[logits.sigmoid().amax(dim=1) < floor].sum()
            figures = [new.figures(old, features) for new, old in zip(stored, exact, strict=True)]
            figures[1].append(below)
            view_sums = [value.double() for term in figures for value in term]
            sums = [view_sums] if not sums else [[a + b for a, b in zip(sums[0], view_sums, strict=True)]]
    (total,) = sums
    cls, box, below_floor = _errors(total[:6]), _errors(total[6:12]), total[12]
    return DenseFidelity(
        bckd_cls_loss_error=cls[0],
        bckd_cls_last_layer_error=cls[1],
        bckd_cls_gradient_error=cls[2],
        bckd_box_loss_error=box[0],
        bckd_box_last_layer_error=box[1],
        bckd_box_gradient_error=box[2],
        box_share_below_floor=_ratio(below_floor, total[7]),
    )


def _terms(
    student: Sequence[Tensor], classes: Tensor, scores: Tensor | None, distances: Tensor
) -> tuple[_Term, _Term]:
    """Class and box term of one view, of a student's class logits and edge logits."""
    logits, edges = (each.clone().requires_grad_() for each in student)
    cls, weight = (each[0] for each in bckd_cls_loss(logits[None], classes[None], scores))
    box = bckd_box_loss(expected_distances(edges), distances) * weight
    (cls_gradient,) = torch.autograd.grad(cls.sum(), logits)
    (box_gradient,) = torch.autograd.grad(box.sum(), edges)
    return (
        _Term(points=cls.detach(), gradient=cls_gradient),
        _Term(points=box.detach(), gradient=box_gradient.flatten(1)),
    )


def _errors(sums: Sequence[Tensor]) -> tuple[float, float, float]:
    """Relative errors of the loss, of the last layer's gradient, and of that by the logits."""
    loss, exact_loss, layer, exact_layer, squares, exact_squares = sums
    return (
        _ratio(loss.abs(), exact_loss),
        _ratio(layer.norm(), exact_layer.norm()),
        _ratio(squares.sqrt(), exact_squares.sqrt()),
    )


def _ratio(part: Tensor, whole: Tensor) -> float:
    return float(part / whole) if whole else 0.0


def require_dense_bounds(fidelity: DenseFidelity, config: FidelityConfig) -> None:
    """Refuse dense arrays that are beyond a bound.

    Raises:
        CacheError: Names the figure, its bound, and what to do.
    """
    bounds = {
        "bckd_cls_loss_error": config.max_dense_loss_error,
        "bckd_box_loss_error": config.max_dense_loss_error,
        "bckd_cls_last_layer_error": config.max_dense_gradient_error,
        "bckd_box_last_layer_error": config.max_dense_gradient_error,
        "box_share_below_floor": config.max_share_below_floor,
    }
    for name, bound in bounds.items():
        value = getattr(fidelity, name)
        if not value <= bound:
            raise CacheError(
                f"fidelity: expected {name} of at most {bound}, but got {value:.4g}; choose a lower "
                "cache_teacher.dense.floor"
            )
