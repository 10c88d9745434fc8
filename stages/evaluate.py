"""COCO evaluation of the teacher, or of one student."""

import json

from pipeline.core.config import load_section
from pipeline.core.environment import Environment
from pipeline.core.files import write_atomically, write_json
from pipeline.core.paths import TEACHER, require_student, run_paths
from pipeline.core.stage import logger, run_stage, stage_arguments
from pipeline.detector.device import device
from pipeline.evaluation.coco_ap import evaluate, write_precision_recall
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.detect import detect
from pipeline.onnx.models import open_model
from pipeline.views.manifest import read_split


def main() -> None:
    """Run the stage."""
    arguments = stage_arguments(__doc__, f"a key of the section students, or {TEACHER}")
    name, params = arguments.name, arguments.params
    config, folder = load_section(EvaluateConfig, "evaluate", params), run_paths(params)
    is_teacher = name == TEACHER
    weights = folder.teacher_weights if is_teacher else folder.student_weights(require_student(name, params))
    manifest = read_split(folder, "val")
    files = open_model(weights, manifest.categories)
    files.spec.require_scales([config.scale], "evaluate.scale")
    results = detect(
        files.load(),
        manifest,
        config.scale,
        batch_size=Environment.read().eval_batch,
        device=device(),
        precision=config.precision,
        label=f"evaluate {name}",
    )
    evaluation = evaluate(manifest, results, config.area_edges)
    write_atomically(folder.evaluation(name) / "detections.json", f"{json.dumps(results)}\n".encode())
    write_precision_recall(evaluation, folder.evaluation(name) / "precision_recall.csv")
    write_json(folder.summary(name), {**evaluation.summary, "per_class": evaluation.per_class})
    headline = {metric: evaluation.summary[metric] for metric in ("AP", "AP50", "AP75")}
    write_json(folder.metrics(name), headline)
    figures = (f"{metric} {'-' if value is None else f'{value:.1f}'}" for metric, value in headline.items())
    logger.info("%s: %s", name, ", ".join(figures))


if __name__ == "__main__":
    run_stage(main)
