"""Train the teacher, or take given weights: ends with one safetensors file and its description."""

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.images import PREPROCESSING
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.data.views import ViewsConfig
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_weights, save_detector
from pipeline.errors import ConfigError
from pipeline.planning import RegionsConfig, ViewPlan
from pipeline.teacher.train import train_teacher
from pipeline.training.checkpoints import Checkpoints, hold_checkpoints, run_name
from pipeline.training.config import TrainConfig
from pipeline.training.curve import LossRow, write_curve
from pipeline.training.processes import Machine, Processes
from stages.launch import SCRATCH, machine, run_training
from stages.runtime import timed

OUTPUT = Path("teacher")


@dataclass(frozen=True, kw_only=True)
class PrepareTeacherConfig:
    """Section ``prepare_teacher``."""

    weights: str | None
    """A safetensors file to take instead of training."""
    detector: DetectorConfig
    views: ViewsConfig
    """Augmentations of its training."""
    train: TrainConfig


def main(processes: Processes) -> None:
    """Run the stage in one of the processes that share the teacher's batches."""
    config = load_section(PrepareTeacherConfig, "prepare_teacher")
    manifest = read_manifest(Path("data/manifest/train.json"))
    classes = len(manifest.categories)
    if config.detector.num_classes != classes:
        raise ConfigError(
            f"params.yaml: prepare_teacher.detector.num_classes: expected the dataset's {classes} classes, "
            f"but got {config.detector.num_classes}"
        )
    identity = {
        "prepare_teacher": asdict(config),
        "images": [manifest.annotations_sha256, manifest.images_sha256],
    }
    with hold_checkpoints(SCRATCH / run_name("teacher", identity), processes) as checkpoints:
        with timed(OUTPUT / "timing.json", images=len(manifest.images)) if processes.leads else nullcontext():
            model, curve = (
                _train(config, manifest, machine(processes), checkpoints)
                if config.weights is None
                else (_load(config, config.weights), [])
            )
        if processes.leads:
            _write(model, curve)


def _write(model: GFL, curve: list[LossRow]) -> None:
    description = {"preprocessing": PREPROCESSING, "strides": model.config.strides}
    save_detector(model, OUTPUT / "model" / "teacher.safetensors", description)
    write_curve(curve, OUTPUT / "loss.csv")


def _train(
    config: PrepareTeacherConfig, manifest: Manifest, here: Machine, checkpoints: Checkpoints
) -> tuple[GFL, list[LossRow]]:
    plan = ViewPlan(
        manifest=manifest,
        strides=config.detector.strides,
        views=config.views,
        # Training reads only the main region, which does not depend on the choice.
        regions=RegionsConfig(overlap="diou", lower_fraction=1.0),
    )
    teacher = train_teacher(config.detector, plan, config.train, machine=here, checkpoints=checkpoints)
    return teacher.model, teacher.curve


def _load(config: PrepareTeacherConfig, weights: str) -> GFL:
    model = GFL(config.detector)
    load_weights(model, Path(weights))
    return model


if __name__ == "__main__":
    run_training(main, "stages.prepare_teacher")
