"""One page about teacher, students and store, for any browser, without a network."""

from pipeline.config import load_section
from pipeline.output import replacing
from pipeline.report.collect import collect
from pipeline.report.page import render
from pipeline.run_folder import run_folder, student_names
from pipeline.student.train import StudentConfig
from pipeline.teacher.fidelity import FidelityConfig
from stages.evaluate import EvaluateConfig
from stages.runtime import device, read_split, run_stage


def main() -> None:
    """Run the stage."""
    students = {name: load_section(StudentConfig, f"students.{name}") for name in student_names()}
    bounds = load_section(FidelityConfig, "verify_cache")
    evaluated = load_section(EvaluateConfig, "evaluate")
    folder = run_folder()
    train, val = read_split(folder, "train"), read_split(folder, "val")
    page = render(collect(folder, train, val, students, device()), bounds, evaluated.area_edges)
    with replacing(folder.report) as partial:
        partial.write_text(page)


if __name__ == "__main__":
    run_stage(main)
