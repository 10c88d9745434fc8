"""Train the teacher, or take a given one: ends with one file of weights and its description."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.manifest import Manifest
from pipeline.data.views import ViewsConfig
from pipeline.detector.config import DetectorConfig
from pipeline.detector.files import import_onnx
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
    """What DVC watches: the weights file to take, the description of an ONNX file, or ``TRAINING_CODE``."""
    detector: DetectorConfig | None
    """Null for an ONNX file, whose description says it all."""
    views: ViewsConfig | None
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
        if (self.detector is None) != self.is_onnx:
            raise ConfigError(
                "detector: expected null with the .yaml description of an ONNX file, and only then"
            )

    @property
    def is_onnx(self) -> bool:
        """The teacher is an ONNX file."""
        return Path(self.source).suffix == ".yaml"


def main() -> None:
    """Run the stage."""
    config = load_section(PrepareTeacherConfig, "prepare_teacher")
    folder = run_folder()
    manifest = read_split(folder, "train")
    with timed(folder.teacher / "timing.json", images=len(manifest.images)):
        curve = _make(config, manifest, folder.teacher_weights)
    write_curve(curve, folder.teacher / "loss.csv")


def _make(config: PrepareTeacherConfig, manifest: Manifest, weights: Path) -> list[LossRow]:
    """Put the teacher at its place; its loss curve is empty unless it was trained."""
    if config.detector is None:
        import_onnx(Path(config.source), manifest.categories, weights)
        return []
    _require_classes(config.detector, manifest)
    if config.train and config.views:
        model, curve = _train(config.detector, config.views, config.train, manifest)
    else:
        model, curve = GFL(config.detector), []
        load_weights(model, Path(config.source))
    save_detector(model, weights, {"strides": model.config.strides})
    return curve


def _require_classes(detector: DetectorConfig, manifest: Manifest) -> None:
    classes = len(manifest.categories)
    if detector.num_classes != classes:
        raise ConfigError(
            f"params.yaml: prepare_teacher.detector.num_classes: expected the dataset's {classes} classes, "
            f"but got {detector.num_classes}"
        )


def _train(
    detector: DetectorConfig, views: ViewsConfig, train: TrainConfig, manifest: Manifest
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
