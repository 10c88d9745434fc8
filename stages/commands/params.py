"""A whole parameter file: every section, checked before any stage runs."""

from pathlib import Path

from pipeline.config import load_section, read_params
from pipeline.errors import ConfigError
from pipeline.run_folder import run_name, student_names
from pipeline.student.train import StudentConfig
from pipeline.teacher.cache_views import CacheConfig
from pipeline.teacher.fidelity import FidelityConfig
from stages.evaluate import EvaluateConfig
from stages.prepare_data import PrepareDataConfig
from stages.prepare_teacher import PrepareTeacherConfig

SECTIONS = {
    "prepare_data": PrepareDataConfig,
    "prepare_teacher": PrepareTeacherConfig,
    "cache_teacher": CacheConfig,
    "verify_cache": FidelityConfig,
    "evaluate": EvaluateConfig,
}
"""What each section is read into; ``students`` has one ``StudentConfig`` for each of its keys."""


def require_params(path: Path) -> None:
    """Check a parameter file from its first key to its last, as all stages together would.

    Raises:
        ConfigError: Names the file, the section and the key.
    """
    content = read_params(path)
    run_name(content, path)
    unknown = [key for key in content if key not in {"name", "students", *SECTIONS}]
    if unknown:
        raise ConfigError(
            f"{path}: unknown section {unknown[0]!r}; expected name, {', '.join(SECTIONS)}, students"
        )
    for section, config in SECTIONS.items():
        load_section(config, section, path)
    for name in student_names(path):
        load_section(StudentConfig, f"students.{name}", path)
