"""Detection losses of a batch: sums over images, gradients only where they belong."""

import torch
from batch_cases import PYRAMID, labeled_view, random_outputs

from pipeline.detector.head import RawOutputs
from pipeline.training.batches import batch_labels
from pipeline.training.criterion import LossNormalizers, Terms, detection_terms, gather_main
from pipeline.views.types import LabeledView


def terms_of(
    raw: RawOutputs,
    views: list[LabeledView],
    batch_hw: tuple[int, int],
    normalizers: LossNormalizers | None = None,
) -> tuple[Terms, LossNormalizers]:
    targets = batch_labels(views, batch_hw, PYRAMID)
    main = gather_main(raw, targets)
    own = LossNormalizers.from_batch(targets, main)
    return detection_terms(raw, targets, main, normalizers or own), own


def test_a_batch_is_the_sum_of_its_images() -> None:
    views = [labeled_view(i, (64, 64), [[4, 4, 40 + i, 50]], [i]) for i in range(3)]
    raw = random_outputs(3, (64, 64))
    together, normalizers = terms_of(raw, views, (64, 64))
    parts = [
        RawOutputs(
            cls_logits=raw.cls_logits[i : i + 1], edge_logits=raw.edge_logits[i : i + 1], sizes=raw.sizes
        )
        for i in range(3)
    ]
    alone = [terms_of(part, [view], (64, 64), normalizers) for part, view in zip(parts, views, strict=True)]
    for name, term in together.items():
        torch.testing.assert_close(term, sum(terms[name] for terms, _ in alone))
    for whole, *of_images in zip(normalizers, *(own for _, own in alone), strict=True):
        torch.testing.assert_close(whole, sum(of_images))


def test_a_batch_without_boxes_has_finite_losses_and_gradients() -> None:
    raw = random_outputs(1, (64, 64))
    terms, _ = terms_of(raw, [labeled_view(1, (64, 64), [], [])], (64, 64))
    assert terms["loss_bbox"] == 0
    assert terms["loss_dfl"] == 0
    sum(terms.values()).backward()
    assert raw.cls_logits.grad.isfinite().all()
    assert raw.edge_logits.grad.abs().sum() == 0
