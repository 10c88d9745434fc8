"""Values of a parameter file replaced from the command line: ``students.ld.train.seed=1``."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import yaml

from pipeline.core.errors import ConfigError, short_repr

Params = dict[str, Any]
"""The content of a parameter file."""


def override(params: Params, assignments: Iterable[str]) -> Params:
    """A copy of ``params`` in which each ``key=value`` holds; values are YAML.

    Raises:
        ConfigError: There is no ``=``, no such key, or the value is not YAML; names the assignment.
    """
    changed = deepcopy(params)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"-S: expected KEY=VALUE, but got {assignment!r}")
        *sections, last = key.split(".")
        _section(changed, sections, last, key)[last] = _value(text, assignment)
    return changed


def _section(params: Params, sections: list[str], last: str, key: str) -> Params:
    """The mapping that has ``last`` as a key."""
    there: Any = params
    for depth, part in enumerate([*sections, last]):
        if not isinstance(there, dict) or part not in there:
            known = ", ".join(there) if isinstance(there, dict) else "none, for it is no section"
            where = ".".join(sections[:depth]) or "the parameters"
            raise ConfigError(f"-S {key}: unknown key {part!r}; expected one of {where}: {known}")
        section, there = there, there[part]
    found: Params = section
    return found


def _value(text: str, assignment: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"-S: expected YAML behind the =, but got {short_repr(assignment)}") from error
