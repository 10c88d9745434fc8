"""COCO evaluation of the teacher or of one student."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.manifest import read_manifest
from pipeline.detector.files import find_model
from pipeline.evaluation.coco_ap import evaluate, write_precision_recall
from pipeline.evaluation.detect import detect, write_results
from pipeline.progress import show_progress
from stages.runtime import device, run_stage, write_json


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Section ``evaluate``."""

    scale: tuple[int, int]
    """Test scale ``(long, short)``, px."""
    batch_size: int
    area_edges: tuple[float, float]
    """Sides in px whose squares part small, medium and large objects."""


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="name of the metrics file")
    parser.add_argument("weights", type=Path, help="the detector: its weights or its description")
    arguments = parser.parse_args()
    config = load_section(EvaluateConfig, "evaluate")
    manifest = read_manifest(Path("data/manifest/val.json"))
    files = find_model(arguments.weights, manifest.categories)
    files.spec.require_scales([config.scale], "evaluate.scale")
    results = detect(
        files.load(),
        manifest,
        config.scale,
        batch_size=config.batch_size,
        device=device(),
        progress=lambda batches, total: show_progress(batches, total, f"evaluate {arguments.name}"),
    )
    evaluation = evaluate(manifest, results, config.area_edges)
    folder = Path("evaluation") / arguments.name
    write_results(results, folder / "detections.json")
    write_precision_recall(evaluation, folder / "precision_recall.csv")
    write_json(
        Path("metrics") / f"{arguments.name}.json", {**evaluation.summary, "per_class": evaluation.per_class}
    )


if __name__ == "__main__":
    run_stage(main)
