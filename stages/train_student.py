"""Train one student from the store; the teacher is not needed."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.cache.reader import TargetStore
from pipeline.config import load_section
from pipeline.detector.gfl import save_detector
from pipeline.run_folder import require_student, run_folder
from pipeline.student.train import StudentConfig, run_identity, stored_targets, train_student
from pipeline.student.validate import validation_on
from pipeline.training.checkpoints import hold_checkpoints, run_key
from pipeline.training.curve import write_curve
from pipeline.training.loop import Trained
from pipeline.training.processes import Processes
from pipeline.training.validation import write_scores
from stages.launch import UNFINISHED, machine, run_training
from stages.runtime import read_split, timed


def main(processes: Processes) -> None:
    """Run the stage in one of the processes that share its batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of the section students in params.yaml")
    name = require_student(parser.parse_args().name)
    config = load_section(StudentConfig, f"students.{name}")
    folder = run_folder()
    train, val = read_split(folder, "train"), read_split(folder, "val")
    store = TargetStore.open(folder.store)
    source = stored_targets(config, store, train)
    here, output = machine(processes), folder.student(name)
    facts = {"epochs": config.train.schedule.epochs, "images": len(train.images)}
    unfinished = UNFINISHED / run_key(name, run_identity(config, store, (train, val)))
    with hold_checkpoints(unfinished, processes) as checkpoints:
        clock: AbstractContextManager[dict[str, object]] = (
            timed(output / "timing.json", **facts) if processes.leads else nullcontext({})
        )
        with clock as timing:
            student = train_student(
                config,
                source,
                train,
                machine=here,
                label=name,
                checkpoints=checkpoints,
                validation=validation_on(config.validation, val, here) if config.validation else None,
            )
            if student.continued_from:
                timing["continued_from_epoch"] = student.continued_from
        if processes.leads:
            _write(student, folder.student_weights(name), output)


def _write(student: Trained, weights: Path, output: Path) -> None:
    save_detector(student.model, weights, {})
    write_curve(student.curve, output / "loss.csv")
    write_scores(student.scores, output / "ap.csv")


if __name__ == "__main__":
    run_training(main, "stages.train_student")
