"""One page about teacher, students and store: ``report/index.html``, for any browser, without a network."""

from pathlib import Path

from pipeline.config import load_section, read_params
from pipeline.report.collect import collect
from pipeline.report.page import render
from pipeline.student.train import StudentConfig
from pipeline.teacher.fidelity import FidelityConfig
from stages.evaluate import EvaluateConfig
from stages.runtime import device, run_stage

OUTPUT = Path("report/index.html")


def main() -> None:
    """Run the stage."""
    students = {name: load_section(StudentConfig, f"students.{name}") for name in read_params()["students"]}
    bounds = load_section(FidelityConfig, "verify_cache")
    evaluated = load_section(EvaluateConfig, "evaluate")
    page = render(collect(Path(), students, device()), bounds, evaluated.area_edges)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(page)


if __name__ == "__main__":
    run_stage(main)
