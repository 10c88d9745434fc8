"""Training a student from a store of its teacher's outputs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from msgspec import to_builtins

from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig, ValidationConfig, WeightSchedule
from pipeline.student.distillation import distillation_terms
from pipeline.student.source import StoreSource, require_fit
from pipeline.training.batches import Batch
from pipeline.training.criterion import LossNormalizers, MainPoints, Terms
from pipeline.training.processes import Placement
from pipeline.training.step import Distill
from pipeline.training.validation import SCORES, Scores, Validation
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
"""Of each term."""


def stored_targets(config: StudentConfig, store: TargetStore, manifest: Manifest) -> StoreSource:
    """A student's targets from a store that fits it; the student takes over the store's conventions.

    Raises:
        CacheError: the store does not fit the student or the dataset.
        ConfigError: the student trains for more epochs than the store has views for, or reads the teacher
            at more positions, or its classes at more points.
    """
    require_fit(store.fingerprint, config.detector, manifest)
    planned, epochs = store.planned_epochs, config.train.epochs
    if planned is not None and epochs > planned:
        raise ConfigError(
            f"train.epochs: expected at most {planned}, for the store holds the views of so many epochs, "
            f"but got {epochs}; train for fewer, or raise cache_teacher.views.epochs and write the store anew"
        )
    if config.loss.reads_dense and store.schema.dense is None:
        raise ConfigError(
            "loss.bckd_cls_weight, bckd_box_weight: expected 0, for the store holds the teacher at kept "
            "points alone; set cache_teacher.dense: {floor: 0.005} and write it anew"
        )
    if config.loss.vlr_kd_weight and not store.schema.valuable_classes:
        raise ConfigError(
            "loss.vlr_kd_weight: expected 0, for the store holds class logits in the main region alone; set "
            "cache_teacher.valuable_classes: true and write it anew"
        )
    return StoreSource(views=store, read_logits=config.loss.reads_teacher, read_dense=config.loss.reads_dense)


def student_losses(config: StudentConfig) -> Distill:
    """The distillation terms of a batch, where it has a teacher's outputs."""

    def distill(raw: RawOutputs, batch: Batch, main: MainPoints, normalizers: LossNormalizers) -> Terms:
        if batch.teacher is None:
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
    mine = replace(manifest, images=manifest.images[processes.rank :: processes.count])

    def score(model: GFL) -> Scores:
        found = detect(
            model,
            mine,
            scale,
            batch_size=Environment.read().eval_batch,
            device=machine.device,
            precision=precision,
        )
        parts = processes.gather(json.dumps(found).encode())
        if not processes.is_main:
            return dict.fromkeys(SCORES)
        results = [result for part in parts for result in json.loads(part)]
        summary = evaluate(manifest, results, AREA_EDGES).summary  # no score depends on them
        return {name: summary[name] for name in SCORES}

    return Validation(score=score, every=config.every, keep=config.keep)
