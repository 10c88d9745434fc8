"""Train the teacher, or take given weights: ends with one safetensors file and its description."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.images import PREPROCESSING
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.data.views import Views
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_weights, save_detector
from pipeline.errors import ConfigError
from pipeline.planning import RegionsConfig, ViewPlan
from pipeline.teacher.train import train_teacher
from pipeline.training.config import TrainConfig
from pipeline.training.loop import LossRow, write_curve
from stages.runtime import device, run_stage, timed, workers

OUTPUT = Path("teacher")


@dataclass(frozen=True, kw_only=True)
class PrepareTeacherConfig:
    """Section ``prepare_teacher``."""

    weights: str | None
    """A safetensors file to take instead of training."""
    detector: DetectorConfig
    views: Views
    """Augmentations of its training."""
    train: TrainConfig


def main() -> None:
    """Run the stage."""
    config = load_section(PrepareTeacherConfig, "prepare_teacher")
    manifest = read_manifest(Path("data/manifest/train.json"))
    classes = len(manifest.categories)
    if config.detector.num_classes != classes:
        raise ConfigError(
            f"params.yaml: prepare_teacher.detector.num_classes: expected the dataset's {classes} classes, "
            f"but got {config.detector.num_classes}"
        )
    with timed(OUTPUT / "timing.json", images=len(manifest.images)):
        model, curve = (
            _train(config, manifest) if config.weights is None else (_load(config, config.weights), [])
        )
    save_detector(
        model,
        OUTPUT / "model" / "teacher.safetensors",
        {"preprocessing": PREPROCESSING, "strides": model.config.strides},
    )
    write_curve(curve, OUTPUT / "loss.csv")


def _train(config: PrepareTeacherConfig, manifest: Manifest) -> tuple[GFL, list[LossRow]]:
    plan = ViewPlan(
        manifest=manifest,
        strides=config.detector.strides,
        views=config.views,
        # Training reads only the main region, which does not depend on the choice.
        regions=RegionsConfig(overlap="diou", lower_fraction=1.0),
    )
    return train_teacher(config.detector, plan, config.train, device=device(), workers=workers())


def _load(config: PrepareTeacherConfig, weights: str) -> GFL:
    model = GFL(config.detector)
    load_weights(model, Path(weights))
    return model


if __name__ == "__main__":
    run_stage(main)
