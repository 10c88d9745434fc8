"""The tree's own rules, held against the import graph: layers, stage dependencies, what loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent

LAYERS: dict[str, int] = {
    "pipeline.core.errors": 0,
    "pipeline.core.config": 1,
    "pipeline.core.output": 1,
    "pipeline.core.paths": 2,
    "pipeline.core.progress": 1,
    "pipeline.parallel": 1,
    "pipeline.codec": 1,
    "pipeline.datasets.shapes": 2,
    "pipeline.data": 2,
    "pipeline.regions": 1,
    "pipeline.losses": 3,
    "pipeline.cache": 3,
    "pipeline.detector": 3,
    "pipeline.regions.view_set": 4,
    "pipeline.teacher.plan_table": 5,
    "pipeline.evaluation": 4,
    "pipeline.training": 4,
    "pipeline.teacher": 6,
    "pipeline.student": 6,
    "pipeline.report": 7,
    "pipeline.cost": 7,
    "pipeline.rehearsal": 7,
    "pipeline.benchmark": 8,
    "stages": 9,
}
"""A module imports strictly lower layers, or its own folder."""

SCRIPTS = sorted(
    path
    for path in (ROOT / "stages").glob("*.py")
    if path.name not in ("__init__.py", "launch.py", "runtime.py")
)


def modules() -> list[Path]:
    return sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def own_imports(path: Path) -> set[Path]:
    """Files of this project that a module imports directly."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative import"
    candidates = (ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names)
    return {file for file in candidates if file.is_file()}


def import_closure(path: Path) -> set[Path]:
    """A module and everything of this project that it loads."""
    closure, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in closure:
            closure.add(file)
            waiting += own_imports(file)
    return closure


def layer(path: Path) -> str:
    name = dotted(path)
    return next(known for known in LAYERS if name == known or name.startswith(known + "."))


def stages() -> dict[str, dict]:
    """Stages of dvc.yaml, each for all its recipes and students."""
    content = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return dict(content)


def script_of(stage: dict) -> Path:
    return ROOT.joinpath(*stage["cmd"].split()[2].split(".")).with_suffix(".py")


def code_deps(stage: dict) -> list[str]:
    return [dep for dep in stage.get("deps", []) if dep.endswith(".py") and "$" not in dep]


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_module_imports_only_lower_layers(path: Path) -> None:
    if path.name == "__init__.py":
        return
    for imported in own_imports(path):
        own_folder = layer(imported) == layer(path)
        assert own_folder or LAYERS[layer(imported)] < LAYERS[layer(path)], f"{path} imports {imported}"


@pytest.mark.parametrize("path", [p for p in modules() if p.name == "__init__.py"], ids=dotted)
def test_package_files_hold_only_a_docstring(path: Path) -> None:
    """Else they would have to be dependencies of every stage that imports their package."""
    assert all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body)


@pytest.mark.parametrize("name", stages())
def test_stage_depends_on_exactly_its_import_closure(name: str) -> None:
    stage = stages()[name]
    closure = sorted(str(file.relative_to(ROOT)) for file in import_closure(script_of(stage)))
    assert code_deps(stage) == closure, "deps of this stage in dvc.yaml should be:\n" + "\n".join(
        f"      - {file}" for file in closure
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=dotted)
def test_every_stage_script_is_a_stage(path: Path) -> None:
    assert path in {script_of(stage) for stage in stages().values()}


def test_student_never_reaches_teacher_code() -> None:
    reached = import_closure(ROOT / "stages/train_student.py") | import_closure(ROOT / "stages/evaluate.py")
    assert not [file for file in reached if layer(file) == "pipeline.teacher"]


def test_training_the_teacher_never_reaches_the_codec() -> None:
    """A fix there makes the store again, not the teacher."""
    reached = import_closure(ROOT / "stages/prepare_teacher.py")
    assert not [file for file in reached if layer(file) == "pipeline.codec"]


def test_teacher_stage_never_reaches_student_code() -> None:
    reached = import_closure(ROOT / "stages/cache_teacher.py")
    assert not {layer(file) for file in reached} & {
        "pipeline.student",
        "pipeline.training",
        "pipeline.losses",
    }


@pytest.mark.parametrize("package", ["pipeline.codec", "pipeline.cache"])
def test_stores_are_read_without_torch(package: str) -> None:
    names = [dotted(p) for p in modules() if dotted(p).startswith(package + ".") and p.name != "__init__.py"]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
