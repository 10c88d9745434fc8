"""One page about teacher, students and store, for any browser, without a network."""

from pipeline.core.config import load_section
from pipeline.core.files import write_atomically
from pipeline.core.paths import load_students, run_paths
from pipeline.core.stage import logger, run_stage, stage_arguments
from pipeline.detector.device import device
from pipeline.evaluation.config import EvaluateConfig
from pipeline.report.page import Report, headline, render
from pipeline.student.config import StudentConfig


def main() -> None:
    """Run the stage."""
    params = stage_arguments(__doc__).params
    students = load_students(StudentConfig, params)
    evaluated = load_section(EvaluateConfig, "evaluate", params)
    folder = run_paths(params)
    report = Report(folder, students, device())
    write_atomically(folder.report, render(report, evaluated.area_edges).encode())
    logger.info("%s", headline(report))
    logger.info("the page: %s", folder.report)


if __name__ == "__main__":
    run_stage(main)
