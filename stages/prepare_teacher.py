"""Train the teacher, or take a given one: ends with one file of weights and its description."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
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
from pipeline.training.checkpoints import Checkpoints, hold_checkpoints, run_key
from pipeline.training.config import TrainConfig
from pipeline.training.curve import LossRow, write_curve
from pipeline.training.processes import Machine, Processes
from stages.launch import UNFINISHED, machine, run_training
from stages.runtime import read_split, timed

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


def main(processes: Processes) -> None:
    """Run the stage in one of the processes that share the teacher's batches."""
    config = load_section(PrepareTeacherConfig, "prepare_teacher")
    folder = run_folder()
    manifest = read_split(folder, "train")
    images = [manifest.annotations_sha256, manifest.images_sha256]
    unfinished = UNFINISHED / run_key("teacher", {"prepare_teacher": asdict(config), "images": images})
    with hold_checkpoints(unfinished, processes) as checkpoints:
        timing = folder.teacher / "timing.json"
        with timed(timing, images=len(manifest.images)) if processes.leads else nullcontext():
            model, curve = _make(config, manifest, machine(processes), checkpoints)
        if processes.leads:
            _write(config, manifest, model, folder.teacher_weights)
            write_curve(curve, folder.teacher / "loss.csv")


def _make(
    config: PrepareTeacherConfig, manifest: Manifest, here: Machine, checkpoints: Checkpoints
) -> tuple[GFL | None, list[LossRow]]:
    """The teacher, unless it is a file of another framework, and its loss curve, if it was trained."""
    if config.detector is None:
        return None, []
    _require_classes(config.detector, manifest)
    if config.train and config.views:
        plan = _plan(config.detector, config.views, manifest)
        teacher = train_teacher(config.detector, plan, config.train, machine=here, checkpoints=checkpoints)
        return teacher.model, teacher.curve
    model = GFL(config.detector)
    load_weights(model, Path(config.source))
    return model, []


def _write(config: PrepareTeacherConfig, manifest: Manifest, model: GFL | None, weights: Path) -> None:
    if model is None:
        import_onnx(Path(config.source), manifest.categories, weights)
    else:
        save_detector(model, weights, {"strides": model.config.strides})


def _require_classes(detector: DetectorConfig, manifest: Manifest) -> None:
    classes = len(manifest.categories)
    if detector.num_classes != classes:
        raise ConfigError(
            f"params.yaml: prepare_teacher.detector.num_classes: expected the dataset's {classes} classes, "
            f"but got {detector.num_classes}"
        )


def _plan(detector: DetectorConfig, views: ViewsConfig, manifest: Manifest) -> ViewPlan:
    return ViewPlan(
        manifest=manifest,
        strides=detector.strides,
        views=views,
        # Training reads only the main region, which does not depend on the choice.
        regions=RegionsConfig(overlap="diou", lower_fraction=1.0),
    )


if __name__ == "__main__":
    run_training(main, "stages.prepare_teacher")
