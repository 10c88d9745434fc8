"""A whole parameter file: every section, checked before any stage runs."""

from pathlib import Path

from pipeline.core.config import Section, load_section, load_student, read_sections
from pipeline.core.errors import ConfigError
from pipeline.core.paths import run_name, student_names
from pipeline.datasets.config import PrepareDataConfig
from pipeline.evaluation.config import EvaluateConfig
from pipeline.fidelity.config import FidelityBounds
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.teacher_config import PrepareTeacherConfig

SECTIONS: dict[str, type[Section]] = {
    "prepare_data": PrepareDataConfig,
    "prepare_teacher": PrepareTeacherConfig,
    "cache_teacher": CacheConfig,
    "verify_cache": FidelityBounds,
    "evaluate": EvaluateConfig,
}
"""What each section is read into; ``students`` has one ``StudentConfig`` for each of its keys."""


def require_params(path: Path) -> None:
    """Check a parameter file from its first key to its last, as all stages together would.

    Raises:
        ConfigError: Names the file, the section and the key.
    """
    content = read_sections(path)
    run_name(content, path)
    unknown = [
        key for key in content if key not in {"name", "root", "file", "student", "students", *SECTIONS}
    ]
    if unknown:
        raise ConfigError(
            f"{path}: unknown section {unknown[0]!r}; expected name, {', '.join(SECTIONS)}, students"
        )
    for section, config in SECTIONS.items():
        load_section(config, section, path)
    for name in student_names(path):
        load_student(StudentConfig, name, path)
