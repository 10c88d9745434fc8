"""The tree's own rules, held against the import graph: layers, stage dependencies, what loads torch.

A stage of ``dvc.yaml`` depends on the folders whose code decides its bytes. ``pipeline/core`` decides none
and is no dependency. That is safe because it cannot touch an array, because the folders of each stage cover
all else that its script imports, and because ``tests/test_pinned_bytes.py`` would notice a byte that moved.
"""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CORE = Path("pipeline/core")

LAYERS = (
    ("core",),
    ("codec",),
    ("views",),
    ("datasets", "losses", "regions"),
    ("detector", "store.format"),
    ("onnx", "store.reader", "store.writer"),
    ("evaluation", "training"),
    ("student", "teacher"),
    ("api", "fidelity"),
    ("cost", "report"),
    ("cli",),
)
"""A module of ``pipeline`` imports strictly lower layers, or its own folder; the stages import all."""

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
FILES = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "stages").rglob("*.py")])
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES if p.name != "__init__.py"}


def imported_names(path: Path) -> set[str]:
    """Absolute names that a module imports when it runs, of whatever package."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    annotations = [
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    never_run = {inner for node in annotations for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in never_run:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


IMPORTS = {module: imported_names(path) & MODULES.keys() for module, path in MODULES.items()}
"""Modules of this project that each one imports by itself."""


def import_closure(module: str) -> set[str]:
    """A module and everything of this project that it loads."""
    closure, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in closure:
            closure.add(name)
            waiting += IMPORTS[name]
    return closure


def layer(module: str) -> tuple[int, str]:
    """Number and folder."""
    known = [(number, f"pipeline.{name}.") for number, names in enumerate(LAYERS) for name in names]
    known.append((len(LAYERS), "stages."))
    return next((number, folder) for number, folder in known if f"{module}.".startswith(folder))


def script_of(stage: dict[str, Any]) -> str:
    return str(stage["cmd"].split()[2])


def code_deps(name: str) -> list[Path]:
    """Folders and files of code that a stage depends on."""
    deps = [Path(dep) for dep in STAGES[name]["deps"] if dep.startswith(("pipeline/", "stages/"))]
    # The parameter `source`, where the teacher is trained.
    return [*deps, Path("pipeline/training")] if name == "prepare_teacher" else deps


def decides_bytes(module: str) -> Path | None:
    """A module's file from the root of the repository, unless it is plumbing."""
    path = MODULES[module].relative_to(ROOT)
    return None if path.is_relative_to(CORE) else path


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_lower_layers(module: str) -> None:
    number, folder = layer(module)
    for imported in IMPORTS[module]:
        assert imported.startswith(folder) or layer(imported)[0] < number, f"{module} imports {imported}"


def test_plumbing_cannot_touch_an_array() -> None:
    for module in MODULES:
        if module.startswith("pipeline.core."):
            packages = {name.partition(".")[0] for name in imported_names(MODULES[module])}
            assert not packages & {"numpy", "torch", "torchvision", "zarr", "numcodecs", "PIL"}, module


@pytest.mark.parametrize("name", STAGES)
def test_folders_of_a_stage_cover_its_import_closure(name: str) -> None:
    known = code_deps(name)
    closure = {path for module in import_closure(script_of(STAGES[name])) if (path := decides_bytes(module))}
    missing = [str(path) for path in sorted(closure) if not any(path.is_relative_to(dep) for dep in known)]
    assert not missing, f"{name}: these decide its bytes and are no dependency: {missing}"
    idle = [str(dep) for dep in known if not any(path.is_relative_to(dep) for path in closure)]
    assert not idle, f"{name}: none of its code is in {idle}"


def test_a_folder_of_a_stage_holds_no_code_that_only_commands_run() -> None:
    """Else an edit of a command would run stages again."""
    known = {dep for name in STAGES for dep in code_deps(name)}
    used = {module for stage in STAGES.values() for module in import_closure(script_of(stage))}
    paths = {module: decides_bytes(module) for module in MODULES if module not in used}
    idle = [module for module, path in paths.items() if path and any(path.is_relative_to(d) for d in known)]
    assert not idle


def test_every_stage_script_is_a_stage() -> None:
    scripts = {module for module in MODULES if module.startswith("stages.")}
    assert {script_of(stage) for stage in STAGES.values()} == scripts


def test_stores_are_read_and_written_without_torch() -> None:
    names = [module for module in MODULES if module.startswith(("pipeline.codec.", "pipeline.store."))]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_dvc_yaml_reads_as_documentation() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 180
