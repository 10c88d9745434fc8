"""Distillation terms of a batch: what they read, whom they teach, and that a plain student needs none."""

import pytest
import torch
from batch_cases import BINS, CLASSES, PYRAMID, random_outputs, three_views
from msgspec import to_builtins
from msgspec.structs import replace

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.detector.head import RawOutputs
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import kd_divergence
from pipeline.student.distillation import distillation_terms
from pipeline.student.teacher_batch import CodedTeacherBatch
from pipeline.training.batches import BatchLabels, batch_labels
from pipeline.training.criterion import LossNormalizers, gather_main

FULL = DistillationConfig(ld_weight=0.25, vlr_weight=0.25, ld_temperature=10, kd_weight=10, kd_temperature=2)


def case() -> tuple[RawOutputs, BatchLabels, CodedTeacherBatch]:
    targets = batch_labels(three_views(), (96, 96), PYRAMID)
    generator = torch.Generator().manual_seed(1)
    teacher = CodedTeacherBatch(
        edges=torch.randn(len(targets.index), 4, BINS, generator=generator),
        classes=torch.randn(len(targets.index), CLASSES, generator=generator),
    )
    return random_outputs(3, (96, 96)), targets, teacher


def terms_of(config: DistillationConfig) -> tuple[RawOutputs, BatchLabels, dict[str, torch.Tensor]]:
    raw, targets, teacher = case()
    main = gather_main(raw, targets)
    normalizers = LossNormalizers.from_batch(targets, main)
    return raw, targets, distillation_terms(raw, targets, teacher, main, normalizers, config)


@pytest.mark.parametrize(
    ("weights", "region"),
    [({"vlr_weight": 0.0, "kd_weight": 0.0}, "main"), ({"ld_weight": 0.0, "kd_weight": 0.0}, "valuable")],
)
def test_a_term_teaches_its_region_alone(weights: dict[str, float], region: str) -> None:
    raw, targets, terms = terms_of(replace(FULL, **weights))
    sum(terms.values()).backward()
    kept = targets.main if region == "main" else torch.nonzero(targets.valuable_weight)[:, 0]
    expected = torch.zeros(raw.edge_logits.shape[:2], dtype=torch.bool)
    expected[targets.image[kept], targets.index[kept]] = True
    assert torch.equal(raw.edge_logits.grad.abs().sum(dim=(2, 3)) > 0, expected)


def test_class_terms_teach_classes_and_edge_terms_teach_edges() -> None:
    raw, _, terms = terms_of(replace(FULL, ld_weight=0.0, vlr_weight=0.0))
    terms["loss_kd"].backward()
    assert raw.edge_logits.grad is None
    assert raw.cls_logits.grad.abs().sum() > 0


def test_a_term_of_weight_zero_is_left_out() -> None:
    names = {"ld_weight": "loss_ld", "vlr_weight": "loss_ld_vlr", "kd_weight": "loss_kd"}
    for weight, name in names.items():
        assert terms_of(replace(FULL, **{weight: 0.0}))[2].keys() == {*names.values()} - {name}


def test_class_distillation_in_the_valuable_region_is_a_mean_over_its_points_on_each_level() -> None:
    """As the reference has it, which then multiplies by 0: weighted by no overlap."""
    raw, targets, teacher = case()
    expected, inside = 0.0, targets.valuable_weight > 0
    for level in targets.level.unique():
        points = torch.nonzero(inside & (targets.level == level))[:, 0].tolist()
        student = [raw.cls_logits[targets.image[p], targets.index[p]] for p in points]
        values = [kd_divergence(s, teacher.classes[p], 2.0) for s, p in zip(student, points, strict=True)]
        expected += 10 * sum(values).item() / len(points) if points else 0
    config = replace(FULL, ld_weight=0.0, vlr_weight=0.0, kd_weight=0.0, vlr_kd_weight=10.0)
    raw, targets, terms = terms_of(config)
    assert terms["loss_kd_vlr"].item() == pytest.approx(expected, rel=1e-5)
    sum(terms.values()).backward()
    taught = torch.zeros(raw.cls_logits.shape[:2], dtype=torch.bool)
    taught[targets.image[inside], targets.index[inside]] = True
    assert torch.equal(raw.cls_logits.grad.abs().sum(dim=2) > 0, taught)
    assert not taught.all()


@pytest.mark.parametrize("change", [{"ld_weight": -1.0}, {"kd_temperature": 0.0}])
def test_impossible_weights_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        structure(DistillationConfig, to_builtins(FULL) | change, "loss")
