"""Fidelity: the store against the live teacher, as the loss sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cache.reader import TargetStore
from pipeline.cache.records import KeptPoints, PlannedView, SoftTargets, StoredView, ViewKey
from pipeline.errors import CacheError, ConfigError
from pipeline.losses.distillation import kd_divergence
from pipeline.planning import ViewPlan
from pipeline.teacher.soft_targets import Teacher

STUDENT_NOISE = 1.0
"""Standard deviation, in logits, of the noise that makes a stand-in student out of the teacher."""

WEIGHT_TOLERANCE = 2e-5
"""Stored weights are IoUs in steps of 1/65535."""


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """How many views are checked, and what is still accepted."""

    views: int
    seed: int
    temperature: float
    """Of the edge distributions: the one that students train at."""
    max_kl: float
    """Mean KL of stored to live edge distributions at ``temperature``, nats."""
    max_loss_error: float
    """Relative error of the LD loss."""
    max_gradient_error: float
    """Relative error of the LD loss's gradient by the student's logits."""

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ConfigError(f"views: expected 1 or more, but got {self.views}")


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What was measured over the sampled views."""

    views: int
    points: int
    equal_regions: bool
    """Points, assignments and weights of every sampled view equal the live ones."""
    kl_mean: float
    kl_max: float
    loss_error: float
    gradient_error: float
    gradient_cosine: float


def sample_keys(store: TargetStore, config: FidelityConfig) -> list[ViewKey]:
    """A random sample of the store's views, ascending."""
    keys = store.keys
    chosen = np.random.default_rng(config.seed).permutation(len(keys))[: config.views]
    return [keys[index] for index in sorted(chosen)]


def measure_fidelity(
    store: TargetStore, plan: ViewPlan, teacher: Teacher, config: FidelityConfig, keys: Sequence[ViewKey]
) -> Fidelity:
    """Run the teacher again on stored views and compare."""
    live_views = [plan.plan(plan.manifest.by_id[key.image_id], key.view) for key in keys]
    live = list(teacher.run(live_views))
    stored = [store.read(key) for key in keys]
    equal = all(_equal_regions(view, read.planned) for view, read in zip(live_views, stored, strict=True))
    if not equal:
        raise CacheError(f"{store.path}: the regions of stored views differ from those computed now")
    teacher_edges = torch.from_numpy(np.concatenate([soft.edge_logits for soft in live])).double()
    stored_edges = torch.from_numpy(np.concatenate([view.edge_logits() for view in stored])).double()
    divergence = _kl(teacher_edges, stored_edges, config.temperature)
    weights = torch.from_numpy(
        np.concatenate([_loss_weights(view, soft) for view, soft in _pairs(stored, live)])
    )
    exact_loss, exact = _loss_and_gradient(teacher_edges, teacher_edges, weights, config)
    loss, gradient = _loss_and_gradient(teacher_edges, stored_edges, weights, config)
    return Fidelity(
        views=len(keys),
        points=len(teacher_edges),
        equal_regions=equal,
        kl_mean=float(divergence.mean()) if divergence.numel() else 0.0,
        kl_max=float(divergence.max()) if divergence.numel() else 0.0,
        loss_error=_ratio(abs(loss - exact_loss), exact_loss),
        gradient_error=_ratio(float((gradient - exact).norm()), float(exact.norm())),
        gradient_cosine=float(torch.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0)),
    )


def _pairs(stored: Sequence[StoredView], live: Sequence[SoftTargets]) -> list[tuple[StoredView, SoftTargets]]:
    return list(zip(stored, live, strict=True))


def _equal_regions(live: PlannedView, stored: PlannedView) -> bool:
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


def _loss_weights(view: StoredView, soft: SoftTargets) -> NDArray[np.float64]:
    """Weight of each point in the two LD terms; the teacher's score stands in for the student's."""
    weights = view.planned.points.valuable_weight.astype(np.float64) / 4
    scores = 1 / (1 + np.exp(-soft.cls_logits.astype(np.float64)))
    weights[view.planned.points.main_region] += scores.max(axis=1, initial=0)
    return weights


def _kl(teacher_logits: Tensor, stored_logits: Tensor, temperature: float) -> Tensor:
    """KL of stored to live distributions, nats: ``Tensor[P, 4]``."""
    live = (teacher_logits / temperature).log_softmax(dim=-1)
    stored = (stored_logits / temperature).log_softmax(dim=-1)
    return (live.exp() * (live - stored)).sum(dim=-1)


def _loss_and_gradient(
    teacher_logits: Tensor, target_logits: Tensor, weights: Tensor, config: FidelityConfig
) -> tuple[float, Tensor]:
    """LD loss of a noisy copy of the teacher against ``target_logits``, and its gradient, in float64."""
    generator = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(teacher_logits.shape, generator=generator, dtype=torch.float64)
    student = (teacher_logits + STUDENT_NOISE * noise).requires_grad_()
    divergence = kd_divergence(student, target_logits, config.temperature).mean(dim=1)
    loss = (divergence * weights).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def require_bounds(fidelity: Fidelity, config: FidelityConfig) -> None:
    """Refuse a store that is less faithful than the bounds say.

    Raises:
        CacheError: names the figure and its bound.
    """
    bounds = {
        "kl_mean": config.max_kl,
        "loss_error": config.max_loss_error,
        "gradient_error": config.max_gradient_error,
    }
    for name, bound in bounds.items():
        value = getattr(fidelity, name)
        if not value <= bound:
            raise CacheError(
                f"fidelity: expected {name} of at most {bound}, but got {value:.4g}; "
                "choose a finer cache_teacher.precision"
            )
