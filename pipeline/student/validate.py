"""Average precision of a student while it is trained."""

import json
from dataclasses import replace

from pipeline.core.environment import Environment
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.gfl import GFL
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.student.config import ValidationConfig
from pipeline.training.processes import Placement
from pipeline.training.validation import SCORES, Scores, Validation
from pipeline.views.manifest import Manifest
from pipeline.views.summary import AREA_EDGES


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
