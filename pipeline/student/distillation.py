"""The distillation terms of a batch: weights and normalization, once and visibly.

Source: repository HikariTJU/LD, ``mmdet/models/dense_heads/ld_head.py`` (``loss_single``).

The reference sums ``loss_ld`` and ``loss_ld_vlr`` over one GPU's images, of which the published runs have 2.
Here they are means over the images times 2 (:data:`REFERENCE_IMAGES`): equal at its batch, and the same for
any other. The class KD on the valuable region is multiplied by zero there; the run on PASCAL VOC had it.

BCKD's terms are divided by what divides ``loss_cls``, as in their reference (repository TinyTigerPan/BCKD).
There a level on which no image of the GPU's batch has a positive is left out, so that an image's gradient
depends on which others are beside it. Here no level is: on one without objects the teacher's scores are next
to 0, and teach just that.
"""

from pipeline.detector.head import RawOutputs
from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss, bckd_distances
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import kd_divergence
from pipeline.student.targets import TeacherBatch
from pipeline.training.batches import BatchLabels
from pipeline.training.criterion import LossNormalizers, MainPoints, Terms

REFERENCE_IMAGES = 2
"""Images per GPU of the published runs, over which the reference sums."""

MIN_COUNT = 1e-6
"""Of points on a level, where something is divided by their number."""

VALUABLE_DIVISOR = 4.0
"""The reference divides the VLR term by 16 and the main term by 4, both summed over the 4 edges."""


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
