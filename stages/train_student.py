"""Train one student from the store; the teacher is not needed."""

from importlib import import_module

from msgspec import to_builtins

from pipeline.core.config import load_section
from pipeline.core.files import write_json
from pipeline.core.paths import require_student, run_paths
from pipeline.core.stage import logger, stage_arguments
from pipeline.detector.gfl import save_detector
from pipeline.losses.config import DistillationConfig
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.targets import stored_targets
from pipeline.student.train import student_losses, validation_on
from pipeline.training.checkpoints import hold_checkpoints, run_key
from pipeline.training.curves import write_curve, write_scores
from pipeline.training.launch import UNFINISHED, machine, run_training
from pipeline.training.loop import train
from pipeline.training.processes import World
from pipeline.views.manifest import read_split


def main(processes: World) -> None:
    """Run the stage in one of the processes that share its batches."""
    arguments = stage_arguments(__doc__, "a key of the section students")
    name = require_student(arguments.name, arguments.params)
    config = load_section(StudentConfig, f"students.{name}", arguments.params)
    shared = load_section(DistillationConfig, "student.loss", arguments.params).ld_temperature
    if config.loss.reads_teacher and config.loss.ld_temperature < shared:
        low = f"students.{name}.loss.ld_temperature: {config.loss.ld_temperature:g} is below the {shared:g}"
        logger.warning("WARNING: %s at which verify_cache compares", low)
    folder = run_paths(arguments.params)
    images = read_split(folder, "train")
    import_module("pipeline.cli.params").check_images(arguments.params, len(images.images))  # by name
    val = read_split(folder, "val") if config.validation.split == "val" else None
    store = TargetStore.open(folder.store)
    here, output = machine(processes), folder.student(name)
    made_from = {"student": to_builtins(config), "store": store.content_sha256}
    made_from["images"] = [split.identity() for split in (images, val) if split]
    unfinished = UNFINISHED / run_key(name, made_from)
    with hold_checkpoints(unfinished, output, processes) as checkpoints:
        student = train(
            config.detector,
            stored_targets(config, store, images),
            images,
            config.train,
            student_losses(config),
            machine=here,
            label=name,
            checkpoints=checkpoints,
            validation=validation_on(config.validation, val, here, config.train.precision) if val else None,
        )
        if processes.is_main:
            facts = {"seconds": round(student.seconds, 2), "device": str(here.device)}
            size = {"epochs": config.train.epochs, "images": len(images.images)}
            write_json(output / "timing.json", facts | size)
            write_json(folder.metrics(f"training/{name}"), {"seconds": facts["seconds"]})
            save_detector(student.model, folder.student_weights(name), {"classes": images.categories})
            write_curve(student.curve, output / "loss.csv")
            write_scores(student.scores, output / "ap.csv")


if __name__ == "__main__":
    run_training(main, "stages.train_student")
