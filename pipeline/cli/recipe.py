"""``ldp recipe``: list the recipes, and make one of them ``params.yaml``."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from pipeline.core.config import PARAMS, read_sections
from pipeline.core.errors import ConfigError
from pipeline.core.files import atomic_path
from pipeline.core.paths import RUNS, run_name

RECIPES = Path("recipes")

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "recipe",
        help="list the recipes, or make one of them params.yaml",
        description="Without NAME, lists recipes/*.yaml and says which of them params.yaml is. With NAME, "
        "checks that recipe from its first key to its last and puts it in the place of params.yaml, in one "
        "step. `dvc repro` and `dvc exp run` then run it; outputs of other recipes stay where they are, "
        "below runs/NAME. Edits of params.yaml that are neither committed nor a recipe are not thrown away.",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of recipes/NAME.yaml")
    parser.add_argument("--force", action="store_true", help="throw away edits of params.yaml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    if arguments.name is None:
        sys.stdout.write(render_recipes(_current()))
        return
    take(arguments.name, force=arguments.force)
    recipe = run_name(read_sections(), PARAMS)
    logger.info("%s is now the recipe %s; its outputs lie in %s", PARAMS, arguments.name, RUNS / recipe)


def take(name: str, *, force: bool) -> None:
    """Make a recipe ``params.yaml``: whole, or not at all.

    Raises:
        ConfigError: There is no such recipe, it is not valid, or ``params.yaml`` was edited.
    """
    path = RECIPES / f"{name}.yaml"
    if path not in recipes():
        known = ", ".join(recipe.stem for recipe in recipes())
        raise ConfigError(f"ldp recipe: expected one of {known}, but got {name!r}")
    # All sections are checked by the stages' own classes, which takes a few seconds to import.
    from pipeline.cli.params import require_params  # noqa: PLC0415

    require_params(path)
    if not force and PARAMS.exists() and _current() is None and not _is_committed():
        raise ConfigError(
            f"{PARAMS} has edits that are neither committed nor a recipe: commit them, save them as "
            f"{RECIPES}/MINE.yaml, or throw them away with --force"
        )
    with atomic_path(PARAMS) as partial:
        partial.write_bytes(path.read_bytes())


def recipes() -> list[Path]:
    """All recipes of this folder, by name."""
    return sorted(RECIPES.glob("*.yaml"))


def render_recipes(current: Path | None) -> str:
    """A line for each recipe: a star at the current one, its name, and the first sentence of its comment."""
    width = max((len(recipe.stem) for recipe in recipes()), default=0)
    lines = [
        f"{'*' if recipe == current else ' '} {recipe.stem:{width}}  {_first_sentence(recipe)}"
        for recipe in recipes()
    ]
    if current is None:
        lines.append(f"{PARAMS} is none of these")
    return "\n".join(lines) + "\n"


def _first_sentence(recipe: Path) -> str:
    comment = []
    for line in recipe.read_text().splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    return " ".join(comment).partition(". ")[0].rstrip(".")


def _current() -> Path | None:
    """The recipe that ``params.yaml`` is, to the byte."""
    content = PARAMS.read_bytes() if PARAMS.exists() else None
    return next((recipe for recipe in recipes() if recipe.read_bytes() == content), None)


def _is_committed() -> bool:
    """Git has this very content of ``params.yaml``, so that it can be had back."""
    command = ["git", "diff", "--quiet", "HEAD", "--", str(PARAMS)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:  # git is not installed
        return False
