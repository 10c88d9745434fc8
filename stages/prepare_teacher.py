"""Train the teacher, or take given weights: ends with one safetensors file and its description."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.images import PREPROCESSING
from pipeline.data.manifest import Manifest
from pipeline.data.views import Views
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_weights, save_detector
from pipeline.errors import ConfigError
from pipeline.planning import RegionsConfig, ViewPlan
from pipeline.run_folder import run_folder
from pipeline.teacher.train import train_teacher
from pipeline.training.config import TrainConfig
from pipeline.training.loop import LossRow, write_curve
from stages.runtime import device, read_split, run_stage, timed, workers

TRAINING_CODE = "pipeline/training"
"""What DVC watches where the teacher is trained; each of its files is a dependency anyway."""


@dataclass(frozen=True, kw_only=True)
class PrepareTeacherConfig:
    """Section ``prepare_teacher``."""

    source: str
    """What DVC watches: the weights file to take, or ``TRAINING_CODE``."""
    detector: DetectorConfig
    views: Views | None
    """Augmentations of its training; null takes ``source``."""
    train: TrainConfig | None
    """Null takes ``source``."""

    def __post_init__(self) -> None:
        if (self.views is None) != (self.train is None):
            raise ConfigError("expected views and train both, to train, or both null, to take source")
        if (self.train is None) != (self.source != TRAINING_CODE):
            raise ConfigError(
                f"source: expected {TRAINING_CODE} to train, or a weights file with views and train null, "
                f"but got {self.source!r}"
            )


def main() -> None:
    """Run the stage."""
    config = load_section(PrepareTeacherConfig, "prepare_teacher")
    folder = run_folder()
    manifest = read_split(folder, "train")
    classes = len(manifest.categories)
    if config.detector.num_classes != classes:
        raise ConfigError(
            f"params.yaml: prepare_teacher.detector.num_classes: expected the dataset's {classes} classes, "
            f"but got {config.detector.num_classes}"
        )
    with timed(folder.teacher / "timing.json", images=len(manifest.images)):
        model, curve = _make(config, manifest)
    save_detector(
        model, folder.teacher_weights, {"preprocessing": PREPROCESSING, "strides": model.config.strides}
    )
    write_curve(curve, folder.teacher / "loss.csv")


def _make(config: PrepareTeacherConfig, manifest: Manifest) -> tuple[GFL, list[LossRow]]:
    if config.train and config.views:
        return _train(config.detector, config.views, config.train, manifest)
    model = GFL(config.detector)
    load_weights(model, Path(config.source))
    return model, []


def _train(
    detector: DetectorConfig, views: Views, train: TrainConfig, manifest: Manifest
) -> tuple[GFL, list[LossRow]]:
    plan = ViewPlan(
        manifest=manifest,
        strides=detector.strides,
        views=views,
        # Training reads only the main region, which does not depend on the choice.
        regions=RegionsConfig(overlap="diou", lower_fraction=1.0),
    )
    return train_teacher(detector, plan, train, device=device(), workers=workers())


if __name__ == "__main__":
    run_stage(main)
