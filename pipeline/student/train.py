"""What a student is trained by: distillation terms, weighted and normalized once and visibly; validation.

Sources: repositories HikariTJU/LD, ``mmdet/models/dense_heads/ld_head.py`` (``loss_single``), and
TinyTigerPan/BCKD. Where the normalization differs on purpose, and why, is in ``pipeline/losses/README.md``.
"""

import json
from dataclasses import replace

from pipeline.core.environment import Environment
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss, bckd_distances, kd_divergence
from pipeline.student.config import StudentConfig, ValidationConfig, WeightSchedule
from pipeline.student.targets import TeacherBatch
from pipeline.training.batches import Batch, BatchLabels
from pipeline.training.criterion import LossNormalizers, MainPoints, Terms
from pipeline.training.curves import SCORES, Scores
from pipeline.training.loop import Validation
from pipeline.training.processes import Placement
from pipeline.training.step import Distill
from pipeline.views.manifest import Manifest
from pipeline.views.summary import AREA_EDGES

REFERENCE_IMAGES = 2
"""Images per GPU of the published runs, over which the reference sums."""

MIN_COUNT = 1e-6
"""Of points on a level, where something is divided by their number."""

VALUABLE_DIVISOR = 4.0
"""The reference divides the VLR term by 16 and the main term by 4, both summed over the 4 edges."""

SCHEDULES = {
    "loss_ld": "ld",
    "loss_ld_vlr": "vlr",
    "loss_kd": "kd",
    "loss_kd_vlr": "vlr_kd",
    "loss_bckd_cls": "bckd_cls",
    "loss_bckd_box": "bckd_box",
}
"""By term."""


def distillation_terms(
    raw: RawOutputs,
    targets: BatchLabels,
    teacher: TeacherBatch,
    main: MainPoints,
    normalizers: LossNormalizers,
    config: DistillationConfig,
) -> Terms:
    """The weighted and normalized terms of a batch, 0-d each; those of weight 0 are left out."""
    terms: Terms = {}
    if config.ld_weight or config.vlr_weight:
        teacher_edges, temperature = teacher.edge_logits(), config.ld_temperature
        per_image = REFERENCE_IMAGES / normalizers.images
        if config.ld_weight:
            divergence = kd_divergence(main.edge_logits, teacher_edges[targets.main], temperature)
            loss = divergence.mean(dim=1) * main.score
            terms["loss_ld"] = config.ld_weight * loss.sum() * per_image
        if config.vlr_weight:
            edges = raw.edge_logits[targets.image, targets.index].float()
            divergence = kd_divergence(edges, teacher_edges, temperature)
            loss = divergence.mean(dim=1) * targets.valuable_weight / VALUABLE_DIVISOR
            terms["loss_ld_vlr"] = config.vlr_weight * loss.sum() * per_image
    if config.kd_weight or config.vlr_kd_weight:
        teacher_classes, temperature = teacher.cls_logits(), config.kd_temperature
        # As the reference averages it: level by level; then it sums the levels.
        if config.kd_weight:
            loss = kd_divergence(main.cls_logits, targets.at_main(teacher_classes), temperature)
            per_level = 1 / normalizers.main_per_level[targets.level[targets.main]]
            terms["loss_kd"] = config.kd_weight * (loss * per_level).sum()
        if config.vlr_kd_weight:
            classes = raw.cls_logits[targets.image, targets.index].float()
            loss = kd_divergence(classes, teacher_classes, temperature) * (targets.valuable_weight > 0)
            # A level may have points of the main region alone; an average over processes may be below 1.
            per_level = 1 / normalizers.valuable_per_level[targets.level].clamp(min=MIN_COUNT)
            terms["loss_kd_vlr"] = config.vlr_kd_weight * (loss * per_level).sum()
    if config.reads_dense:
        dense = teacher.dense
        assert dense is not None, "the source reads the teacher at all positions"
        cls, weight = bckd_cls_loss(raw.cls_logits, dense.classes, dense.scores)
        if config.bckd_cls_weight:
            loss = cls * targets.valid
            terms["loss_bckd_cls"] = config.bckd_cls_weight * loss.sum() / normalizers.positives
        if config.bckd_box_weight:
            boxes = bckd_box_loss(bckd_distances(raw.edge_logits), dense.distances.float() * dense.unit)
            loss = boxes * weight * targets.valid
            terms["loss_bckd_box"] = config.bckd_box_weight * loss.sum() / normalizers.positives
    return terms


def student_losses(config: StudentConfig) -> Distill:
    """The distillation terms of a batch, where it has a teacher's outputs."""

    def distill(raw: RawOutputs, batch: Batch, main: MainPoints, normalizers: LossNormalizers) -> Terms:
        if not isinstance(batch.teacher, TeacherBatch):
            return {}
        terms = distillation_terms(raw, batch.targets, batch.teacher, main, normalizers, config.loss)
        for name, term in terms.items():
            schedule: WeightSchedule = getattr(config.schedules, SCHEDULES[name])
            terms[name] = term * schedule.factor(batch.epoch, config.train.epochs)
        return terms

    return distill


def validation_on(
    config: ValidationConfig, manifest: Manifest, machine: Placement, precision: NetworkPrecision
) -> Validation:
    """Validation on the images of a manifest, which the processes share."""
    processes, scale = machine.processes, config.scale
    assert scale is not None, "a validation has a scale"
    share = replace(manifest, images=manifest.images[processes.rank :: processes.count])
    batch = Environment.read().eval_batch

    def score(model: GFL) -> Scores:
        rows = detect(model, share, scale, batch_size=batch, device=machine.device, precision=precision)
        parts = processes.gather(json.dumps(rows).encode())
        if not processes.is_main:
            return dict.fromkeys(SCORES)
        results = [result for part in parts for result in json.loads(part)]
        summary = evaluate(manifest, results, AREA_EDGES).summary  # no score depends on them
        return {name: summary[name] for name in SCORES}

    return Validation(score=score, every=config.every, keep=config.keep)
