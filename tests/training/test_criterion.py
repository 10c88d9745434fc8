"""Detection losses of a batch: sums over images, gradients only where they belong."""

from dataclasses import fields

import torch
from batch_cases import PYRAMID, labeled_view, random_outputs, three_views

from pipeline.detector.head import RawOutputs
from pipeline.training.batches import batch_labels
from pipeline.training.criterion import DetectionLosses, LossNormalizers, detection_losses, gather_main
from pipeline.views.types import LabeledView


def losses_of(
    raw: RawOutputs, views: list[LabeledView], batch_hw: tuple[int, int]
) -> tuple[DetectionLosses, LossNormalizers]:
    targets = batch_labels(views, batch_hw, PYRAMID)
    main = gather_main(raw, targets)
    return detection_losses(raw, targets, main), LossNormalizers.from_batch(targets, main)


def test_a_batch_is_the_sum_of_its_images() -> None:
    views = [labeled_view(i, (64, 64), [[4, 4, 40 + i, 50]], [i]) for i in range(3)]
    raw = random_outputs(3, (64, 64))
    together = losses_of(raw, views, (64, 64))
    alone = [
        losses_of(
            RawOutputs(
                cls_logits=raw.cls_logits[i : i + 1], edge_logits=raw.edge_logits[i : i + 1], sizes=raw.sizes
            ),
            [view],
            (64, 64),
        )
        for i, view in enumerate(views)
    ]
    for part in (0, 1):
        for name in [field.name for field in fields(together[part])]:
            total = sum(getattr(one[part], name).sum() for one in alone)
            torch.testing.assert_close(getattr(together[part], name).sum(), total)


def test_cells_outside_an_images_padding_cost_nothing() -> None:
    raw = random_outputs(3, (96, 96))
    targets = batch_labels(three_views(), (96, 96), PYRAMID)
    losses, _ = losses_of(raw, three_views(), (96, 96))
    assert losses.cls[~targets.valid].abs().sum() == 0
    assert (losses.cls[targets.valid] > 0).all()


def test_box_losses_reach_only_main_region_points() -> None:
    raw = random_outputs(3, (96, 96))
    targets = batch_labels(three_views(), (96, 96), PYRAMID)
    losses, normalizers = losses_of(raw, three_views(), (96, 96))
    terms = losses.reduce(normalizers)
    (terms["loss_bbox"] + terms["loss_dfl"]).backward()
    touched = raw.edge_logits.grad.abs().sum(dim=(2, 3)) > 0
    main = torch.zeros_like(touched)
    main[targets.image[targets.main], targets.index[targets.main]] = True
    assert torch.equal(touched, main)
    assert raw.cls_logits.grad is None  # the score that weighs a box gets no gradient


def test_a_batch_without_boxes_has_finite_losses_and_gradients() -> None:
    raw = random_outputs(1, (64, 64))
    losses, normalizers = losses_of(raw, [labeled_view(1, (64, 64), [], [])], (64, 64))
    terms = losses.reduce(normalizers)
    assert terms["loss_bbox"] == 0
    assert terms["loss_dfl"] == 0
    sum(terms.values()).backward()
    assert raw.cls_logits.grad.isfinite().all()
    assert raw.edge_logits.grad.abs().sum() == 0
