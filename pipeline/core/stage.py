"""What every stage shares: its command line, its errors as one line, and its log."""

import argparse
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from pipeline.core.config import PARAMS, load_section
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError, PipelineError, explained_memory
from pipeline.core.files import require_writable
from pipeline.core.orphans import keep_freed_memory
from pipeline.core.paths import RunPaths, has_stages, in_its_recipe, run_paths

T = TypeVar("T")

logger = logging.getLogger(__name__)


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage: an error that a user can cause is one line and exit code 1."""
    try:
        keep_freed_memory()
        logging.basicConfig(level=Environment.read().log, format="%(message)s", stream=sys.stderr)
        for name in Environment.unknown():
            logger.warning("%s: WARNING: nothing reads it; see stages/README.md", name)
        with explained_memory():
            main()
    except (PipelineError, OSError) as error:
        # A full disk or a missing permission names its file; LDP_LOG=DEBUG shows where it happened.
        logger.debug("where it happened:", exc_info=True)
        sys.exit(f"error: {in_its_recipe(str(error))}")
    except KeyboardInterrupt:
        sys.exit(130)


def stage_arguments(description: str | None, name_help: str | None = None) -> argparse.Namespace:
    """The checked recipe's ``params`` file, and ``name`` where a stage is given one."""
    parser = argparse.ArgumentParser(description=description)
    if name_help:
        parser.add_argument("name", help=name_help)
    parser.add_argument("--params", type=Path, default=PARAMS, metavar="FILE", help="params.yaml of a recipe")
    arguments = parser.parse_args()
    # By name: what reads every section is in no stage's closure, and changes none of its bytes.
    import_module("pipeline.cli.params").check_params(arguments.params)
    try:
        has_stages(arguments.params.parent)
    except ConfigError as error:  # perhaps meant so: whoever added a stage of their own goes on
        logger.warning("WARNING: %s", error)
    require_writable(run_paths(arguments.params).root)
    return arguments


def stage_inputs(cls: type[T], section: str, description: str | None) -> tuple[T, RunPaths, Path]:
    """A stage's section of the checked recipe, the recipe's folder, and its ``params`` file."""
    params = stage_arguments(description).params
    return load_section(cls, section, params), run_paths(params), params
