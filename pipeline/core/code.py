"""What bytes depend on beside their inputs: the code, but for comments and docstrings, and the libraries."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]

LIBRARIES = ("numpy", "torch", "torchvision", "pillow", "onnxruntime", "zarr", "numcodecs")
"""Those that compute, decode images, or compress."""


def made_by(folders: Iterable[str]) -> dict[str, Any]:
    """Digests of the modules in ``folders`` of this package, and versions of the libraries that matter."""
    paths = sorted(path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))
    return {
        "code": {
            path.relative_to(PACKAGE.parent).as_posix(): code_digest(path.read_text()) for path in paths
        },
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def loaded_code() -> dict[str, str | None]:
    """Digests of the loaded modules of this project outside ``core``, and versions of the libraries."""
    files = {
        Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))
    }
    own = {file.relative_to(PACKAGE.parent) for file in files if file.is_relative_to(PACKAGE.parent)}
    decide = [path for path in own if path.parts[0] in ("pipeline", "stages") and "core" not in path.parts]
    digests = {path.as_posix(): code_digest((PACKAGE.parent / path).read_text()) for path in sorted(decide)}
    return digests | {name: _version(name) for name in LIBRARIES}


def changed_code(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> list[str]:
    """Modules and libraries that differ.

    What only one of both has loaded does not count: a module that came or went is imported by another, which
    has changed then.
    """
    return sorted(name for name in before.keys() & after.keys() if before[name] != after[name])


def code_digest(source: str) -> str:
    """sha256 (hex) of what a module does: formatting, comments and docstrings do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [statement for statement in body if not _is_docstring(statement)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
