"""Training a student from a store of its teacher's outputs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msgspec import to_builtins

from pipeline.core.environment import Environment
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig, ValidationConfig, WeightSchedule
from pipeline.student.distillation import distillation_terms
from pipeline.student.targets import TeacherBatch
from pipeline.training.batches import Batch
from pipeline.training.criterion import LossNormalizers, MainPoints, Terms
from pipeline.training.curve import SCORES, Scores
from pipeline.training.loop import Validation
from pipeline.training.processes import Placement
from pipeline.training.step import Distill
from pipeline.views.manifest import Manifest
from pipeline.views.summary import AREA_EDGES

SCHEDULES = {
    "loss_ld": "ld",
    "loss_ld_vlr": "vlr",
    "loss_kd": "kd",
    "loss_kd_vlr": "vlr_kd",
    "loss_bckd_cls": "bckd_cls",
    "loss_bckd_box": "bckd_box",
}
"""By term."""


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


def run_identity(config: StudentConfig, store: TargetStore, manifests: Sequence[Manifest]) -> dict[str, Any]:
    """All that decides a student's weights but the code: what a checkpoint may be continued by."""
    return {
        "student": to_builtins(config),
        "store": store.content_sha256,
        "images": [manifest.identity() for manifest in manifests],
    }


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
