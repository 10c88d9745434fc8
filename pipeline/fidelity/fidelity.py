"""Fidelity: the store against the live teacher, as the loss sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import CacheError
from pipeline.fidelity.config import FidelityConfig, LossSettings
from pipeline.fidelity.loss_error import LossError, measure_loss_error, stand_in_student
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.teacher.extractor import LogitExtractor
from pipeline.views.types import KeptPoints, LabeledView, SoftTargets, ViewKey

WEIGHT_TOLERANCE = 6e-4
"""Stored weights are IoUs in steps of 1/1023."""


VALUABLE_DIVISOR = 4.0
"""A valuable point weighs a quarter of its VLR weight, see ``student.distillation``."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What was measured over the sampled views."""

    views: int
    points: int
    equal_regions: bool
    """Points, assignments and weights of every sampled view equal the live ones."""
    kl_mean: float
    """Of the edge distributions at the LD temperature, nats."""
    kl_max: float
    loss_error: float
    """Of the LD loss, relative; likewise the gradient's."""
    gradient_error: float
    gradient_cosine: float
    kd_loss_error: float
    """Of the class-KD loss, relative; likewise the gradient's."""
    kd_gradient_error: float


def sample_keys(store: TargetStore, config: FidelityConfig) -> list[ViewKey]:
    """A random sample of the store's views, ascending."""
    keys = store.keys
    chosen = np.random.default_rng(config.seed).permutation(len(keys))[: config.views]
    return [keys[index] for index in sorted(chosen)]


def measure_fidelity(
    store: TargetStore,
    view_set: ViewSet,
    teacher: LogitExtractor,
    config: FidelityConfig,
    keys: Sequence[ViewKey],
) -> Fidelity:
    """Run the teacher again on stored views and compare."""
    live_views = [view_set.view(key) for key in keys]
    live = list(teacher.run(live_views))
    stored = [store.read(key) for key in keys]
    if not all(_equal_regions(view, read.view) for view, read in zip(live_views, stored, strict=True)):
        raise CacheError(f"{store.path}: the regions of stored views differ from those computed now")
    exact = PointLogits.joined(live_views, live)
    approximate = PointLogits.joined([view.view for view in stored], [_as_soft(view) for view in stored])
    edges, classes = measure_loss_errors(exact, approximate, None, config.loss_settings)
    return Fidelity(
        views=len(keys),
        points=len(exact.edges),
        equal_regions=True,
        kl_mean=edges.kl_mean,
        kl_max=edges.kl_max,
        loss_error=edges.loss_error,
        gradient_error=edges.gradient_error,
        gradient_cosine=edges.gradient_cosine,
        kd_loss_error=classes.loss_error,
        kd_gradient_error=classes.gradient_error,
    )


@dataclass(frozen=True, kw_only=True)
class PointLogits:
    """What the losses read at the points of many views, one after another."""

    edges: Tensor
    """``Tensor[P, 4, bins]``."""
    classes: Tensor
    """``Tensor[M, 1, C]``."""
    weights: Tensor
    """``Tensor[P]``: VLR weights."""
    main: Tensor
    """``BoolTensor[P]``: the point is in the main region."""

    @classmethod
    def joined(cls, views: Sequence[LabeledView], targets: Sequence[SoftTargets]) -> "PointLogits":
        """Put views one after another."""
        return cls(
            edges=torch.from_numpy(np.concatenate([soft.edge_logits for soft in targets])),
            classes=torch.from_numpy(np.concatenate([soft.cls_logits for soft in targets])).unsqueeze(1),
            weights=torch.from_numpy(np.concatenate([view.points.valuable_weight for view in views])),
            main=torch.from_numpy(np.concatenate([view.points.main_region for view in views])),
        )


def measure_loss_errors(
    exact: PointLogits, approximate: PointLogits, student: PointLogits | None, settings: LossSettings
) -> tuple[LossError, LossError]:
    """Errors of the LD loss over all points, and of the class-KD loss over the main region.

    Args:
        exact: The teacher's.
        approximate: As stored, of the same points.
        student: At the same points; ``None`` for a stand-in, see ``stand_in_student``.
        settings: Temperatures, and the stand-in's seed.
    """
    # The teacher's score stands in for the student's, which weighs the main region.
    scores = torch.zeros(len(exact.edges)).double()
    scores[exact.main] = exact.classes.double().sigmoid().amax(dim=(1, 2))
    weights, stored_weights = (
        scores + each.weights.double() / VALUABLE_DIVISOR for each in (exact, approximate)
    )
    ones = torch.ones(len(exact.classes))
    return (
        measure_loss_error(
            (exact.edges, weights),
            (approximate.edges, stored_weights),
            student.edges if student else stand_in_student(exact.edges, settings.seed),
            settings.temperature,
        ),
        measure_loss_error(
            (exact.classes, ones),
            (approximate.classes, ones),
            student.classes if student else stand_in_student(exact.classes, settings.seed),
            settings.cls_temperature,
        ),
    )


def _as_soft(view: StoredView) -> SoftTargets:
    return SoftTargets(edge_logits=view.edge_logits(), cls_logits=view.cls_logits())


def _equal_regions(live: LabeledView, stored: LabeledView) -> bool:
    return (
        np.array_equal(live.boxes_xyxy, stored.boxes_xyxy)
        and np.array_equal(live.labels, stored.labels)
        and _equal_points(live.points, stored.points)
    )


def _equal_points(live: KeptPoints, stored: KeptPoints) -> bool:
    return (
        np.array_equal(live.level, stored.level)
        and np.array_equal(live.position, stored.position)
        and np.array_equal(live.main_gt, stored.main_gt)
        and np.allclose(live.valuable_weight, stored.valuable_weight, rtol=0, atol=WEIGHT_TOLERANCE)
    )


def require_bounds(fidelity: Fidelity, config: FidelityConfig) -> None:
    """Refuse a store that is less faithful than the bounds say.

    Raises:
        CacheError: names the figure and its bound.
    """
    bounds = {
        "kl_mean": config.max_kl,
        "loss_error": config.max_loss_error,
        "gradient_error": config.max_gradient_error,
        "kd_loss_error": config.max_loss_error,
        "kd_gradient_error": config.max_gradient_error,
    }
    for name, bound in bounds.items():
        value = getattr(fidelity, name)
        if not value <= bound:
            raise CacheError(
                f"fidelity: expected {name} of at most {bound}, but got {value:.4g}; "
                "choose a finer cache_teacher.precision"
            )
