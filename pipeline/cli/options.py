"""What commands have in common: how they are declared, and the recipe that they take, with other values."""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.config import PARAMS, dump_yaml, parse_yaml, read_sections
from pipeline.core.errors import ConfigError, short_repr
from pipeline.core.paths import find_recipe

Argument = tuple[tuple[str, ...], dict[str, Any]]
"""What ``add_argument`` is given."""
Run = Callable[[argparse.Namespace], None]


class Command(NamedTuple):
    """A command, whose docstring is what ``--help`` says."""

    run: Run
    arguments: tuple[Argument, ...]


def command(*arguments: Argument) -> Callable[[Run], Command]:
    """Make a function a command with these arguments."""
    return lambda run: Command(run, arguments)


def argument(*names: str, **options: Any) -> Argument:
    """An argument of a command, as argparse declares it."""
    return names, options


def output_file(suffix: str) -> Callable[[str], Path]:
    """The type of an argument that names a file to write: one of another kind may be a slip, and is kept."""

    def path(text: str) -> Path:
        if Path(text).suffix != suffix:
            raise argparse.ArgumentTypeError(f"expected a file *{suffix}, but got {text!r}")
        return Path(text)

    return path


RECIPE = argument(
    "recipe", nargs="?", default=str(PARAMS), metavar="RECIPE", help="name, folder or file (params.yaml)"
)
JSON = argument("--json", type=output_file(".json"), metavar="FILE", help="also write the figures here")
CHANGES = argument(
    "-S",
    dest="assignments",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="take this value instead of the recipe's, as in `-S student.train.precision=bfloat16`",
)


@contextmanager
def copied_recipe(arguments: argparse.Namespace) -> Iterator[Path]:
    """A valid copy of the recipe's file with the values of ``-S``; errors name the recipe's own file."""
    recipe, values = find_recipe(arguments.recipe), dict[str, Any]()
    for assignment in arguments.assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"-S: expected KEY=VALUE, but got {assignment!r}")
        values[key] = parse_yaml(text, f"-S {key}")
    with tempfile.TemporaryDirectory(prefix="ldp-recipe-") as folder:
        copy = Path(folder, PARAMS)
        values |= {"root": str(Path.cwd()), "file": str(copy)}
        copy.write_text(dump_yaml(override(read_sections(recipe), values)))
        try:
            yield copy
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), str(recipe))) from error


def require_least(arguments: argparse.Namespace, **least: int) -> None:
    """Refuse options below their least values; a ``ConfigError`` names the option."""
    for name, bound in least.items():
        value = getattr(arguments, name)
        if value is not None and value < bound:
            raise ConfigError(f"--{name}: expected {bound} or more, but got {value}")


def override(params: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``params`` with values at dotted keys; a ``ConfigError`` if a part of a key is no section."""
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
