"""Train one student from the store; the teacher is not needed."""

import argparse

from pipeline.cache.reader import TargetStore
from pipeline.config import load_section
from pipeline.data.images import PREPROCESSING
from pipeline.detector.gfl import save_detector
from pipeline.run_folder import require_student, run_folder
from pipeline.student.train import StudentConfig, stored_targets, train_student
from pipeline.training.loop import write_curve
from stages.runtime import device, read_split, run_stage, timed, workers


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="a key of the section students in params.yaml")
    name = require_student(parser.parse_args().name)
    config = load_section(StudentConfig, f"students.{name}")
    folder = run_folder()
    manifest = read_split(folder, "train")
    store = TargetStore.open(folder.store)
    output = folder.student(name)
    schedule = config.train.schedule
    with timed(output / "timing.json", epochs=schedule.epochs, images=len(manifest.images)):
        source = stored_targets(config, store, manifest)
        model, curve = train_student(config, source, manifest, device=device(), workers=workers(), label=name)
    save_detector(model, folder.student_weights(name), {"preprocessing": PREPROCESSING})
    write_curve(curve, output / "loss.csv")


if __name__ == "__main__":
    run_stage(main)
