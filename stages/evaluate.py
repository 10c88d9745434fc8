"""COCO evaluation of the teacher, or of one student."""

import argparse
from dataclasses import dataclass

from pipeline.config import load_section
from pipeline.data.views import ViewsConfig
from pipeline.detector.files import find_model
from pipeline.errors import ConfigError
from pipeline.evaluation.coco_ap import evaluate, write_precision_recall
from pipeline.evaluation.detect import detect, write_results
from pipeline.progress import show_progress
from pipeline.run_folder import TEACHER, require_student, run_folder
from stages.runtime import device, read_split, run_stage, write_json


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Section ``evaluate``."""

    scale: tuple[int, int]
    """Test scale ``(long, short)``, px."""
    batch_size: int
    area_edges: tuple[float, float]
    """Sides in px whose squares part small, medium and large objects."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: expected 1 or more, but got {self.batch_size}")
        if not 0 < self.area_edges[0] < self.area_edges[1]:
            raise ConfigError(f"area_edges: expected 0 < small < large, but got {self.area_edges}")
        # The rule of scales is that of views.
        ViewsConfig(scales=(self.scale,), flips=(False,))


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help=f"a key of the section students in params.yaml, or {TEACHER}")
    name = parser.parse_args().name
    config = load_section(EvaluateConfig, "evaluate")
    folder = run_folder()
    if name != TEACHER:
        require_student(name)
    weights = folder.teacher_weights if name == TEACHER else folder.student_weights(name)
    manifest = read_split(folder, "val")
    files = find_model(weights, manifest.categories)
    files.spec.require_scales([config.scale], "evaluate.scale")
    results = detect(
        files.load(),
        manifest,
        config.scale,
        batch_size=config.batch_size,
        device=device(),
        progress=lambda batches, total: show_progress(batches, total, f"evaluate {name}"),
    )
    evaluation = evaluate(manifest, results, config.area_edges)
    write_results(results, folder.evaluation(name) / "detections.json")
    write_precision_recall(evaluation, folder.evaluation(name) / "precision_recall.csv")
    write_json(folder.metrics(name), {**evaluation.summary, "per_class": evaluation.per_class})


if __name__ == "__main__":
    run_stage(main)
