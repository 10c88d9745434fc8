"""What commands have in common: how they are declared, and the recipe that they take, with other values."""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.core.config import PARAMS, dump_yaml, parse_yaml, read_sections
from pipeline.core.errors import ConfigError, short_repr
from pipeline.core.paths import find_recipe

Params = dict[str, Any]
"""The content of a parameter file."""


def add_actions(
    parser: argparse.ArgumentParser, actions: Mapping[str, tuple[str, str, str]]
) -> dict[str, Callable[..., argparse.Action]]:
    """Declare sub-commands by name; returns the function of each that declares its arguments.

    Args:
        parser: Of the command.
        actions: ``MODULE:FUNCTION`` of this package, imported when it runs, for most load torch; what the
            action does, in a line and in full.
    """
    group = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    declare = {}
    for name, (target, line, description) in actions.items():
        action = group.add_parser(name, help=line, description=description)
        action.set_defaults(run=_lazily(*target.split(":")))
        declare[name] = action.add_argument
    return declare


def _lazily(module: str, function: str) -> Callable[[argparse.Namespace], None]:
    return lambda arguments: getattr(import_module(f"pipeline.cli.{module}"), function)(arguments)


def add_recipe(add: Callable[..., argparse.Action]) -> None:
    """Declare ``RECIPE``."""
    named = "its name, folder or file; default: params.yaml"
    add("recipe", nargs="?", default=str(PARAMS), metavar="RECIPE", help=named)


def add_json(add: Callable[..., argparse.Action]) -> None:
    """Declare ``--json``."""
    add("--json", type=Path, metavar="FILE", help="also write the figures here")


def add_changed_recipe(add: Callable[..., argparse.Action]) -> None:
    """Declare ``RECIPE``, ``-S`` and ``--json``."""
    add_recipe(add)
    replaced = "take this value instead of the recipe's, as in `-S student.train.precision=bfloat16`"
    add("-S", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help=replaced)
    add_json(add)


@contextmanager
def copied_recipe(arguments: argparse.Namespace) -> Iterator[tuple[Params, Path]]:
    """The recipe with the values of ``-S``, and a copy of it as a file; errors name the recipe's own file."""
    recipe = find_recipe(arguments.recipe)
    params = override(read_sections(recipe), parse_assignments(arguments.assignments))
    with tempfile.TemporaryDirectory(prefix="ldp-") as folder:
        copy = write_params(params, Path(folder, "params.yaml"))
        try:
            yield params, copy
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), str(recipe))) from error


def require_least(arguments: argparse.Namespace, command: str, **least: int) -> None:
    """Refuse options below their least values.

    Raises:
        ConfigError: Names the option.
    """
    for name, bound in least.items():
        value = getattr(arguments, name)
        if value is not None and value < bound:
            raise ConfigError(f"ldp {command}: --{name}: expected {bound} or more, but got {value}")


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


def write_params(params: Params, path: Path) -> Path:
    """Write a parameter file; returns its path."""
    path.write_text(dump_yaml(params))
    return path
