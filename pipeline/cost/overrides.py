"""A recipe with some of its values replaced: ``student.train.precision=bfloat16``."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from pipeline.core.config import parse_yaml
from pipeline.core.errors import ConfigError, short_repr

Params = dict[str, Any]
"""The content of a parameter file."""


def parse_assignments(assignments: Iterable[str]) -> Params:
    """Values by dotted key, from ``KEY=VALUE`` with YAML values.

    Raises:
        ConfigError: There is no ``=``, or the value is not YAML; names the assignment.
    """
    values: Params = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"-S: expected KEY=VALUE, but got {assignment!r}")
        values[key] = parse_yaml(text, f"-S {key}")
    return values


def override(params: Params, values: Mapping[str, Any]) -> Params:
    """A copy of ``params`` in which each dotted key has its value; classes of the sections check it later.

    Raises:
        ConfigError: A part of a key names something that is no section.
    """
    changed = deepcopy(params)
    for key, value in values.items():
        section: Any = changed
        *parts, last = key.split(".")
        for part in parts:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"-S {key}: expected a section {part!r}, but it is {short_repr(section)}")
        section[last] = value
    return changed


def lookup(params: Params, key: str) -> Any:
    """The value at a dotted key, for a student that of all students where it has none; ``None`` if absent."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    students, _, rest = key.partition(".")
    if value is None and students == "students" and "." in rest:
        return lookup(params, f"student.{rest.partition('.')[2]}")
    return value


def write_params(params: Params, path: Path) -> Path:
    """Write a parameter file; returns its path."""
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path


def for_probe(params: Params, batch_size: int | None = None) -> Params:
    """The recipe as it is measured: from random weights, and with an image's views of two epochs at most.

    Args:
        params: The recipe.
        batch_size: Of the students' steps, if not the recipe's.
    """
    values: Params = {}
    for name in params["students"]:
        values[f"students.{name}.train.pretrained"] = False
        if batch_size is not None:
            values[f"students.{name}.train.batch_size"] = batch_size
    if "epochs" in params["cache_teacher"]["views"]:
        values["cache_teacher.views.epochs"] = min(2, params["cache_teacher"]["views"]["epochs"])
    return override(params, values)
