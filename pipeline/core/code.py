"""What bytes depend on beside their inputs: the code, but for comments and docstrings, and the libraries."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("numpy", "torch", "torchvision", "pillow", "onnxruntime", "zarr", "numcodecs")
"""Those that compute, decode images, or compress."""


def made_by(folders: Iterable[str]) -> dict[str, Any]:
    """Digests of the modules in ``folders`` of this package, and versions of the libraries that matter."""
    paths = (path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))
    return {"code": _digests(paths), "libraries": _versions()}


def loaded_code() -> dict[str, str | None]:
    """Digests of the loaded modules of this project outside ``core``, and versions of the libraries."""
    files = {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    ours = [path for path in map(Path, files) if {PACKAGE, PACKAGE.parent / "stages"} & {*path.parents}]
    return _digests(path for path in ours if PACKAGE / "core" not in path.parents) | _versions()


def changed_code(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> list[str]:
    """Modules and libraries of both that differ: what imports one that came or went has changed, too."""
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


@cache
def code_digest(source: str) -> str:
    """sha256 (hex) of what a module does: formatting, comments and docstrings do not count."""
    return hashlib.sha256(ast.dump(_WithoutTexts().visit(ast.parse(source))).encode()).hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def _digests(paths: Iterable[Path]) -> dict[str, str | None]:
    return {
        path.relative_to(PACKAGE.parent).as_posix(): code_digest(path.read_text()) for path in sorted(paths)
    }


@cache
def _versions() -> dict[str, str | None]:
    """Versions of the libraries; ``None`` for what is not installed."""
    versions: dict[str, str | None] = dict.fromkeys(LIBRARIES)
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
