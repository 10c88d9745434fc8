"""Train the teacher, or take a given one: ends with one file of weights and its description."""

from importlib import import_module

from msgspec import to_builtins

from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.progress import timed_call
from pipeline.core.stage import stage_inputs
from pipeline.detector.gfl import GFL, load_given, random_teacher, save_detector
from pipeline.onnx.models import import_onnx
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.training.batches import TargetSource
from pipeline.training.checkpoints import Checkpoints, hold_checkpoints, run_key
from pipeline.training.config import RANDOM_WEIGHTS, PrepareTeacherConfig
from pipeline.training.curves import write_curve
from pipeline.training.launch import UNFINISHED, machine, run_training
from pipeline.training.loop import Trained, train
from pipeline.training.processes import Placement, World
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.manifest import Manifest, read_split


def main(processes: World) -> None:
    """Run the stage in one of the processes that share the teacher's batches."""
    config, folder, params = stage_inputs(PrepareTeacherConfig, "prepare_teacher", __doc__)
    manifest = read_split(folder, "train")
    import_module("pipeline.cli.params").check_images(params, len(manifest.images))  # by name
    made_from = {"prepare_teacher": to_builtins(config), "images": manifest.identity()}
    unfinished, here = UNFINISHED / run_key("teacher", made_from), machine(processes)
    with hold_checkpoints(unfinished, folder.teacher, processes) as checkpoints:
        (model, trained), seconds = timed_call(_make, config, manifest, here, checkpoints)
        if processes.is_main:
            # Of a training that was killed and continued, all its runs count.
            facts = {"seconds": round(trained.seconds if trained else seconds, 2), "device": str(here.device)}
            write_json(folder.teacher / "timing.json", {**facts, "images": len(manifest.images)})
            if model is None:
                import_onnx(config.file, manifest.categories, folder.teacher_weights)
            else:
                described = {"strides": model.config.strides, "classes": manifest.categories}
                save_detector(model, folder.teacher_weights, described)
            write_curve(trained.curve if trained else {}, folder.teacher / "loss.csv")


def _make(
    config: PrepareTeacherConfig, manifest: Manifest, here: Placement, saved: Checkpoints
) -> tuple[GFL | None, Trained | None]:
    """The teacher, unless it is a file of another framework, and its training, if it was trained."""
    if config.detector is None:
        return None, None
    if config.train is None and config.source != RANDOM_WEIGHTS:
        return load_given(config.file, config.detector, manifest.categories), None
    classes, got = len(manifest.categories), config.detector.num_classes
    if got != classes:
        where = "params.yaml: prepare_teacher.detector.num_classes"
        raise ConfigError(f"{where}: expected the dataset's {classes} classes, but got {got}")
    if config.train is None or config.views is None:
        return random_teacher(config.detector), None
    # Training reads only the main region, which does not depend on the choice.
    regions = RegionsConfig(vlr="paper", vlr_gamma=1.0)
    view_set = ViewSet(manifest, config.detector.strides, config.views, regions, GFL_CONVENTIONS)
    source = TargetSource(views=view_set.remembering())
    teacher = train(
        config.detector, source, manifest, config.train, machine=here, label="teacher", checkpoints=saved
    )
    return teacher.model, teacher


if __name__ == "__main__":
    run_training(main, "stages.prepare_teacher")
