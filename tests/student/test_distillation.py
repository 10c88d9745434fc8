"""The terms of a batch: whatever shares it is cut into, its gradient is the average of theirs."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from batch_cases import BINS, CLASSES, PYRAMID, labeled_view, random_outputs, three_views
from msgspec.structs import replace
from torch import Tensor, nn

from pipeline.detector.head import RawOutputs
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import kd_divergence
from pipeline.student.targets import TeacherBatch
from pipeline.student.train import SCHEDULES, distillation_terms
from pipeline.training.batches import BatchLabels, batch_labels
from pipeline.training.criterion import LossNormalizers, Terms, detection_terms, gather_main
from pipeline.views.types import LabeledView

FULL = DistillationConfig(
    ld_weight=0.25, vlr_weight=0.25, ld_temperature=10, kd_weight=10, vlr_kd_weight=5, kd_temperature=2
)
BATCH_HW, FEATURES = (64, 64), 6
SHARES = [[0, 1], [2, 3], [4, 5], [6, 7]]
EMPTY = [2, 3, 5]
"""Images without a box: all of one share, and one of another."""


def image(number: int) -> tuple[LabeledView, Tensor, Tensor, Tensor]:
    """A view, what a stand-in network makes its logits from, and a teacher's edge and class logits."""
    rng = np.random.default_rng(number)
    corners = rng.uniform(0, 30, (0 if number in EMPTY else 1 + number % 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(8, 30, corners.shape)], axis=1)
    labels = rng.integers(0, CLASSES, len(boxes))
    view = labeled_view(number, (64 - 32 * (number % 2), 64), boxes, labels)
    features = torch.from_numpy(rng.normal(size=(len(PYRAMID.grid(BATCH_HW)), FEATURES))).float()
    edges = torch.from_numpy(rng.normal(0, 3, (len(view.points), 4, BINS))).float()
    return view, features, edges, torch.from_numpy(rng.normal(-2, 2, (len(view.points), CLASSES))).float()


def gradients(
    network: nn.Linear, numbers: Iterable[int], normalizers: LossNormalizers | None = None
) -> tuple[dict[str, Tensor], LossNormalizers]:
    """Gradient of every term of some images by the network's weights, and their own normalizers."""
    views, features, edges, classes = zip(*(image(number) for number in numbers), strict=True)
    targets = batch_labels(views, BATCH_HW, PYRAMID)
    out = network(torch.stack(features)).split([CLASSES, 4 * BINS], dim=-1)
    raw = RawOutputs(cls_logits=out[0], edge_logits=out[1].unflatten(-1, (4, BINS)), sizes=targets.sizes)
    main = gather_main(raw, targets)
    alone = LossNormalizers.from_batch(targets, main)
    terms = detection_terms(raw, targets, main, normalizers or alone)
    teacher = TeacherBatch(edges=torch.cat(edges), classes=torch.cat(classes))
    terms |= distillation_terms(raw, targets, teacher, main, normalizers or alone, FULL)
    by_weight = {
        name: torch.autograd.grad(term, network.weight, retain_graph=True, materialize_grads=True)[0]
        for name, term in terms.items()
    }
    return by_weight, alone


def test_gradient_of_a_batch_is_the_average_of_its_shares_by_their_mean_normalizers() -> None:
    """Of the localization terms, which are means over equally many images, by their own, too."""
    torch.manual_seed(0)
    network = nn.Linear(FEATURES, CLASSES + 4 * BINS)
    expected, _ = gradients(network, range(8))
    apart, alone = zip(*(gradients(network, share) for share in SHARES), strict=True)
    counts = torch.stack([each.main_per_level for each in alone])
    assert ((counts.sum(dim=1) == 0).tolist(), bool((counts[0] == 0).any())) == (
        [False, True, False, False],
        True,
    )
    mean = LossNormalizers(*(torch.stack(values).mean(dim=0) for values in zip(*alone, strict=True)))
    assert not any(value.requires_grad for value in mean)
    shared = [gradients(network, share, mean)[0] for share in SHARES]
    for name, gradient in expected.items():
        largest = gradient.abs().max()
        assert largest > 0, name
        average = torch.stack([each[name] for each in shared]).mean(dim=0)
        torch.testing.assert_close(average, gradient, rtol=1e-4, atol=1e-5 * largest.item(), msg=name)
        difference = (torch.stack([each[name] for each in apart]).mean(dim=0) - gradient).abs().max()
        assert (difference < 1e-5 * largest) == (name in ("loss_ld", "loss_ld_vlr")), name


def terms_of(
    config: DistillationConfig, views: list[LabeledView]
) -> tuple[RawOutputs, BatchLabels, TeacherBatch, Terms]:
    targets, raw = batch_labels(views, (96, 96), PYRAMID), random_outputs(len(views), (96, 96))
    generator = torch.Generator().manual_seed(1)
    edges, classes = (
        torch.randn(len(targets.index), *shape, generator=generator) for shape in ((4, BINS), (CLASSES,))
    )
    teacher, main = TeacherBatch(edges=edges, classes=classes), gather_main(raw, targets)
    normalizers = LossNormalizers.from_batch(targets, main)
    terms = detection_terms(raw, targets, main, normalizers)
    return raw, targets, teacher, terms | distillation_terms(raw, targets, teacher, main, normalizers, config)


def test_a_batch_without_boxes_has_finite_losses_and_gradients() -> None:
    raw, _, _, terms = terms_of(FULL, [labeled_view(1, (64, 64), [], [])])
    assert {name for name, term in terms.items() if term} == {"loss_cls"}
    torch.stack(list(terms.values())).sum().backward()
    assert raw.cls_logits.grad.isfinite().all()
    assert not raw.edge_logits.grad.any()


def test_a_term_of_weight_zero_is_left_out() -> None:
    every = terms_of(FULL, three_views())[3].keys()
    for name in ("ld", "vlr", "kd", "vlr_kd"):
        without = terms_of(replace(FULL, **{f"{name}_weight": 0.0}), three_views())[3].keys()
        assert [SCHEDULES[term] for term in every - without] == [name]


def test_class_distillation_in_the_valuable_region_is_a_mean_over_its_points_on_each_level() -> None:
    """As the reference has it, which then multiplies by 0: weighted by no overlap."""
    raw, targets, teacher, terms = terms_of(FULL, three_views())
    expected, inside = 0.0, targets.valuable_weight > 0
    for level in targets.level.unique():
        points = torch.nonzero(inside & (targets.level == level))[:, 0].tolist()
        student = [raw.cls_logits[targets.image[p], targets.index[p]] for p in points]
        values = [kd_divergence(s, teacher.classes[p], 2.0) for s, p in zip(student, points, strict=True)]
        expected += 5 * sum(values).item() / len(points) if points else 0
    assert terms["loss_kd_vlr"].item() == pytest.approx(expected, rel=1e-5)
    terms["loss_kd_vlr"].backward()
    taught = torch.zeros(raw.cls_logits.shape[:2], dtype=torch.bool)
    taught[targets.image[inside], targets.index[inside]] = True
    assert torch.equal(raw.cls_logits.grad.abs().sum(dim=2) > 0, taught)
    assert not taught.all()
