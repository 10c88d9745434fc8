"""Fidelity: the store against the live teacher, as the loss sees it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from pipeline.codec.logits import dequantize_classes, dequantize_edges
from pipeline.codec.precision import Precision, WeightCode
from pipeline.core.errors import CacheError
from pipeline.fidelity.config import BOUNDED, FidelityConfig
from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss, kd_divergence
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.schema import EDGE_CODES, REGION, StoreSchema
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.extractor import LogitExtractor, read_batch
from pipeline.views.box_ops import expected_distances
from pipeline.views.types import NOT_MAIN, LabeledView, SoftTargets, ViewKey

FINER = (0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Shares of the configured steps that are tried where those are too coarse."""

WRITE_AGAIN = "write the store again (`dvc repro -f cache_teacher`), or go back to what it was written with"
VALUABLE_DIVISOR = 4.0
"""A valuable point weighs a quarter of its VLR weight, see ``student.train``."""
STUDENT_NOISE = 1.0
"""Standard deviation, in logits, of the noise that makes a stand-in student out of the teacher.

So far is the default run's student ``plain`` from its teacher at its end (0.8-0.9), the hardest moment: the
gradient that an error is compared with vanishes as they approach.
"""


@dataclass(frozen=True, kw_only=True)
class LossErrors:
    """Relative errors of a loss and its gradient, of approximate logits against exact ones."""

    kl_mean: float
    """KL of approximate to exact distributions at the temperature, nats."""
    kl_max: float
    loss_error: float
    gradient_error: float
    """Of the gradient by the student's logits."""
    gradient_cosine: float


@dataclass(frozen=True, kw_only=True)
class Fidelity(LossErrors):
    """What was measured over the sampled views: errors of LD, and of class KD."""

    views: int
    points: int
    equal_regions: bool = True
    """Points and assignments of every sampled view equal the live ones, weights as far as they are coded."""
    kd_loss_error: float
    kd_gradient_error: float

    remedy: ClassVar[str] = (
        "choose finer steps in cache_teacher.precision; if it was written from other pixels, by other code "
        f"or by another teacher than is here, {WRITE_AGAIN}"
    )


@dataclass(frozen=True)
class DenseFidelity:
    """Relative errors of BCKD's terms over all positions of the sampled views."""

    bckd_cls_loss_error: float
    bckd_cls_last_layer_error: float
    """Of the gradient by the weights of a last layer."""
    bckd_box_loss_error: float
    bckd_box_last_layer_error: float
    box_share_below_floor: float
    """Share of the exact box loss at positions all of whose scores are below the floor."""

    remedy: ClassVar[str] = "choose a lower cache_teacher.dense.floor"


Measured = Fidelity | DenseFidelity


class PointLogits(NamedTuple):
    """What the losses read at the P points of many views, M of which are in the main region."""

    edges: Tensor
    """``Tensor[P, 4, bins]``."""
    classes: Tensor
    """``Tensor[M, C]``, or ``[P, C]`` of a store with ``valuable_classes``."""
    weights: Tensor
    """``Tensor[P]``: VLR weights."""
    main: Tensor
    """``BoolTensor[P]``."""

    @classmethod
    def joined(cls, views: Sequence[LabeledView], targets: Sequence[SoftTargets]) -> "PointLogits":
        logits = [(soft.edge_logits, soft.cls_logits) for soft in targets]
        regions = [(view.points.valuable_weight, view.points.main_region) for view in views]
        columns = (*zip(*logits, strict=True), *zip(*regions, strict=True))
        return cls(*(torch.from_numpy(np.concatenate(column)) for column in columns))


def sample_keys(keys: Sequence[ViewKey], count: int, seed: int) -> list[ViewKey]:
    """A random sample of views, ascending."""
    chosen = np.random.default_rng(seed).permutation(len(keys))[:count]
    return [keys[index] for index in sorted(chosen)]


def measure_fidelity(
    store: TargetStore,
    view_set: ViewSet,
    teacher: LogitExtractor,
    config: FidelityConfig,
    keys: Sequence[ViewKey],
) -> Fidelity:
    """Run the teacher again on stored views and compare; a ``CacheError`` as of :func:`check_regions`."""
    views = [view_set.view(key) for key in keys]
    stored = [store.read(key) for key in keys]
    for view, read in zip(views, stored, strict=True):
        check_regions(view, read.view, store.schema.weight_code, store.path)
    live = list(teacher.run(views))
    approximate = PointLogits.joined([view.view for view in stored], [view.soft_targets() for view in stored])
    return compare(len(keys), PointLogits.joined(views, live), approximate, config)


def compare(views: int, exact: PointLogits, approximate: PointLogits, config: FidelityConfig) -> Fidelity:
    """Errors of the LD loss over all points, and of the class-KD loss over those with class logits."""
    # The teacher's score stands in for the student's, which weighs the main region.
    scores = torch.zeros(len(exact.edges)).double()
    best = exact.classes.double().sigmoid().amax(dim=1)
    scores[exact.main] = best[exact.main] if len(best) == len(scores) else best
    edges = measure_loss_error(
        (exact.edges, scores + exact.weights.double() / VALUABLE_DIVISOR),
        (approximate.edges, scores + approximate.weights.double() / VALUABLE_DIVISOR),
        stand_in_student(exact.edges, config.seed),
        config.temperature,
    )
    ones = torch.ones(len(exact.classes))
    true, stored = (logits.classes.unsqueeze(1) for logits in (exact, approximate))
    student = stand_in_student(true, config.seed)
    classes = measure_loss_error((true, ones), (stored, ones), student, config.cls_temperature)
    kd: dict[str, Any] = {"kd_loss_error": classes.loss_error, "kd_gradient_error": classes.gradient_error}
    return Fidelity(views=views, points=len(exact.edges), **asdict(edges), **kd)


def stand_in_student(teacher_logits: Tensor, seed: int) -> Tensor:
    """The teacher's logits with noise, see ``STUDENT_NOISE``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(teacher_logits.shape, generator=generator, dtype=torch.float64)
    return teacher_logits.double() + STUDENT_NOISE * noise


WeightedLogits = tuple[Tensor, Tensor]
"""``Tensor[R, n, k]``: n distributions over k entries a row, and ``Tensor[R]``: what the row weighs."""


def measure_loss_error(
    exact: WeightedLogits, approximate: WeightedLogits, student: Tensor, temperature: float
) -> LossErrors:
    """Errors of the loss ``sum over rows of weight * mean over n of kd_divergence``, in float64.

    ``student`` is ``Tensor[R, n, k]``; ``approximate`` is ``exact`` up to a constant per distribution.
    """
    p, q = ((logits.double() / temperature).log_softmax(dim=-1) for logits, _ in (exact, approximate))
    divergence = (p.exp() * (p - q)).sum(dim=-1)
    true_loss, true_gradient = _loss_and_gradient(student, exact, temperature)
    loss, gradient = _loss_and_gradient(student, approximate, temperature)
    some = divergence if divergence.numel() else torch.zeros(1)
    return LossErrors(
        kl_mean=float(some.mean()),
        kl_max=float(some.max()),
        loss_error=ratio(abs(loss - true_loss), true_loss),
        gradient_error=ratio(float((gradient - true_gradient).norm()), float(true_gradient.norm())),
        gradient_cosine=float(torch.cosine_similarity(gradient.flatten(), true_gradient.flatten(), dim=0)),
    )


def _loss_and_gradient(student: Tensor, teacher: WeightedLogits, temperature: float) -> tuple[float, Tensor]:
    logits, weights = teacher
    student = student.double().detach().requires_grad_()
    divergence = kd_divergence(student, logits.double(), temperature).mean(dim=1)
    loss = (divergence * weights.double()).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


def ratio(part: float | Tensor, whole: float | Tensor) -> float:
    """Their quotient; 0 of nothing."""
    return float(part / whole) if whole else 0.0


def measure_dense(
    store: TargetStore, view_set: ViewSet, teacher: LogitExtractor, seed: int, keys: Sequence[ViewKey]
) -> DenseFidelity:
    """Run the teacher again on stored views and compare it at every position, as BCKD's terms see it.

    Both terms have a kink where student and teacher agree: there the smallest error of the target turns a
    gradient *by the student's logits* over. Bounded are the loss, and the gradient of a last layer, summing
    positions up: a linear one on the teacher's logits and a constant, as not every teacher shows features.
    """
    assert store.schema.dense is not None, "the store has dense arrays"
    floor, generator = store.schema.dense.floor, torch.Generator().manual_seed(seed)
    figures: list[list[Tensor]] = []
    for batch in teacher.batches([view_set.view(key) for key in keys]):
        raw = teacher.outputs(teacher.images(read_batch(batch, teacher.preprocessing), batch))
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
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Class and box term of one view: ``Tensor[n]``, and ``Tensor[n, K]``, its gradient by the logits."""
    logits, edges = (each.clone().requires_grad_() for each in student)
    cls, weight = (each[0] for each in bckd_cls_loss(logits[None], classes[None], scores))
    box = bckd_box_loss(expected_distances(edges), distances) * weight
    (cls_gradient,) = torch.autograd.grad(cls.sum(), logits)
    (box_gradient,) = torch.autograd.grad(box.sum(), edges)
    return (cls.detach(), cls_gradient), (box.detach(), box_gradient.flatten(1))


def find_precision(
    schema: StoreSchema, views: Sequence[LabeledView], live: Sequence[SoftTargets], config: FidelityConfig
) -> Precision | None:
    """The coarsest of some finer precisions that keeps the bounds on sampled views; ``None`` if none does."""
    steps = schema.precision
    if steps.edge_step is None or steps.cls_step is None:
        return None
    for share in FINER:
        edge_step, cls_step = (float(f"{share * step:.2g}") for step in (steps.edge_step, steps.cls_step))
        finer = structs.replace(steps, edge_step=edge_step, cls_step=cls_step)
        lost = measure_quantization(replace(schema, precision=finer), views, live, config)
        if not exceeded_bound(lost, config):
            return finer
    return None


def measure_quantization(
    schema: StoreSchema, views: Sequence[LabeledView], live: Sequence[SoftTargets], config: FidelityConfig
) -> Fidelity:
    """What a store of ``schema`` would lose of a teacher's outputs."""
    rows = quantize_partition(schema, views, live).arrays
    region, precision = rows[REGION], schema.precision
    main = region[:, 2] != NOT_MAIN
    steps = precision.edge_steps(schema.weight_code, region[:, 3], main)
    edges = dequantize_edges(rows[EDGE_CODES], steps)
    classes = dequantize_classes(rows[schema.cls_path], precision.cls_step)
    columns = (edges, classes, schema.weight_code.dequantize(region[:, 3]), main)
    approximate = PointLogits(*map(torch.from_numpy, columns))
    return compare(len(views), PointLogits.joined(views, live), approximate, config)


def check_regions(live: LabeledView, stored: LabeledView, weights: WeightCode, store: Path) -> None:
    """Refuse a stored view whose boxes or points are others now; the ``CacheError`` names the first."""
    points = ("level", "position", "main_gt", "valuable_weight")
    for path in ("boxes_xyxy", "labels", *(f"points.{name}" for name in points)):
        now, then = map(attrgetter(path), (live, stored))
        problem = f"{len(then)} rows in the store, but {len(now)} now"
        if len(now) == len(then):
            far = weights.max_error(now) if path == "points.valuable_weight" else 0
            wrong = np.argwhere(~(np.abs(now.astype(np.float64) - then) <= far))
            if len(wrong) == 0:
                continue
            place = tuple(wrong[0])
            problem = f"row {place[0]} is {then[place]:g} in the store, but {now[place]:g} now"
        raise CacheError(
            f"{store}: the regions of stored views differ from those found now: "
            f"{path.removeprefix('points.')} of image_id={live.key.image_id}, view={live.key.view}: "
            f"{problem}; annotations or the code that finds regions have changed: {WRITE_AGAIN}"
        )


def exceeded_bound(fidelity: Measured, config: FidelityConfig) -> str | None:
    """The first figure that is beyond its bound, in words; ``None`` if all are kept."""
    for bound, names in BOUNDED.items():
        for name in names:
            value, limit = getattr(fidelity, name, 0), getattr(config, bound)
            if not value <= limit:
                return f"expected {name} of at most {limit}, but got {value:.4g}"
    return None


def require_bounds(fidelity: Measured, config: FidelityConfig) -> None:
    """Refuse a store beyond a bound; the ``CacheError`` names the figure, the bound, and what to do."""
    if problem := exceeded_bound(fidelity, config):
        raise CacheError(f"fidelity: {problem}; {fidelity.remedy}")
