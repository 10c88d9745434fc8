"""Where all that a recipe makes lies: below ``runs/NAME``, after the key ``name`` of its ``params.yaml``."""

import os
import re
import sys
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pipeline.core.config import PARAMS, load_section, read_sections
from pipeline.core.errors import ConfigError, short_repr

T = TypeVar("T")

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")

RUNS, RECIPES, STAGES = Path("runs"), Path("recipes"), "dvc.yaml"
SCRATCH = Path("scratch")
"""Unfinished work, which DVC does not know; each piece is keyed by all that it depends on."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
"""What DVC takes as part of a stage's name, and every file system as that of a folder."""
TEACHER = "teacher"
"""The name under which the teacher is evaluated, beside the students."""


class RunPaths:
    """The outputs of one recipe's stages, all below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root
        self.checked: Final = root / "checked"
        self.teacher: Final = root / "teacher"
        self.teacher_weights: Final = self.teacher / "model" / "teacher.safetensors"
        """Its description lies beside it, as a student's does."""
        self.store: Final = root / "cache" / "targets.zarr"
        self.cache_timing: Final = root / "cache" / "timing.json"
        self.fidelity: Final = root / "cache" / "fidelity.json"
        self.report: Final = root / "report" / "index.html"

    def split(self, split: Split) -> Path:
        """What ``prepare_data`` leaves of a split: its manifest, and its images if it rendered them."""
        return self.root / "data" / split

    def manifest(self, split: Split) -> Path:
        return self.split(split) / "manifest.json"

    def student(self, name: str) -> Path:
        return self.root / "students" / name

    def student_weights(self, name: str) -> Path:
        return self.student(name) / "model" / "student.safetensors"

    def evaluation(self, name: str) -> Path:
        """Folder of a student's detections, or of ``TEACHER``'s; likewise below."""
        return self.root / "evaluation" / name

    def summary(self, name: str) -> Path:
        """COCO summary, with the AP of every class."""
        return self.evaluation(name) / "summary.json"

    def metrics(self, name: str) -> Path:
        """What ``dvc metrics show`` prints: headlines of a detector, ``data/SPLIT``, ``training/STUDENT``."""
        return self.root / "metrics" / f"{name}.json"


def recipe_files() -> list[Path]:
    """Parameter files of this repository: the default's, and each recipe's by name."""
    return [PARAMS, *sorted(RECIPES.glob(f"*/{PARAMS}"))]


def find_recipe(given: str) -> Path:
    """The parameter file of a recipe, given by name, folder or file; a ``ConfigError`` names all recipes."""
    for path in (Path(given), Path(given, PARAMS), RECIPES / given / PARAMS):
        if path.is_file():
            return path
    names = {read_sections(path).get("name"): path for path in recipe_files() if path.is_file()}
    if given not in names:
        known = ", ".join(map(str, names))
        raise ConfigError(f"recipe: expected a name ({known}), a folder or a file, but got {given!r}")
    return names[given]


def has_stages(folder: Path) -> bool:
    """Whether DVC knows the recipe in a folder; a ``ConfigError`` if by other stages than this code's."""
    copy = folder / STAGES
    if copy.is_file() and copy.read_bytes() != Path(STAGES).read_bytes():
        raise ConfigError(
            f"{copy}: expected the stages of {STAGES}, but got others, edited or of another version; "
            f"`cp {STAGES} {copy}` replaces them"
        )
    return os.path.lexists(copy)


def in_its_recipe(message: str) -> str:
    """Let DVC's commands in a message name the stages of the recipe that it, or the command line, names."""
    named = re.search(rf"\b(?:{RUNS}|{RECIPES})/([\w-]+)/", f"{message} {' '.join(sys.argv)}")
    stages = RECIPES / named[1] / STAGES if named else Path(STAGES)
    if not stages.is_file():
        stages = Path(STAGES)
    message = re.sub(r"`dvc (repro|pull|commit)((?: -[\w-]+)*)`", rf"`dvc \1\2 {stages}`", message)
    return re.sub(r"`dvc (repro|commit)((?: -[\w-]+)*) (\w+)`", rf"`dvc \1\2 {stages}:\3`", message)


def run_paths(params: Path = PARAMS) -> RunPaths:
    """The folder that a parameter file's ``name`` stands for; errors as of :func:`run_name`."""
    return RunPaths(RUNS / run_name(read_sections(params), params))


def run_name(content: Any, where: Path) -> str:
    """The ``name`` in a parameter file; a ``ConfigError`` if it cannot be that of a folder and a stage."""
    return _require_name(content.get("name") if isinstance(content, dict) else None, f"{where}: name")


def student_names(path: Path = PARAMS) -> list[str]:
    """Keys of the section ``students``; a ``ConfigError`` if there is none, or one is no folder's name."""
    students: Any = read_sections(path).get("students")
    if not isinstance(students, dict) or not students or TEACHER in students:
        expected = f"{path}: students: expected one or more by name, none of them {TEACHER!r}"
        raise ConfigError(f"{expected}, but got {short_repr(students)}")
    return [_require_name(name, f"{path}: students") for name in students]


def _require_name(name: object, where: str) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"{where}: expected a name of letters, digits, _ and -, but got {short_repr(name)}")
    return name


def load_students(cls: type[T], path: Path = PARAMS) -> dict[str, T]:
    """Every student's section by its name, see :func:`~pipeline.core.config.load_section`."""
    return {name: load_section(cls, f"students.{name}", path) for name in student_names(path)}


def require_student(name: str, path: Path = PARAMS) -> str:
    """``name``, once it has proved to be that of a student; a ``ConfigError`` names those that there are."""
    names = student_names(path)
    if name not in names:
        raise ConfigError(f"{path}: students: expected one of {', '.join(names)}, but got {name!r}")
    return name
