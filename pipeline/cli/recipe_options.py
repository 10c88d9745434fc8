"""What commands that take a recipe have in common."""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.config import PARAMS, read_sections
from pipeline.core.errors import ConfigError
from pipeline.core.paths import find_recipe
from pipeline.cost.overrides import Params, override, parse_assignments, write_params


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Declare ``RECIPE``, ``-S`` and ``--json``."""
    add = parser.add_argument
    named = "its name, folder or file; default: params.yaml"
    add("recipe", nargs="?", default=str(PARAMS), metavar="RECIPE", help=named)
    replaced = "take this value instead of the recipe's, as in `-S student.train.precision=bfloat16`"
    add("-S", dest="assignments", action="append", default=[], metavar="KEY=VALUE", help=replaced)
    add("--json", type=Path, metavar="FILE", help="also write the figures here")


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
