"""What a stage is told on its command line."""

import argparse
from importlib import import_module
from pathlib import Path

from pipeline.core.config import PARAMS


def stage_arguments(description: str | None, name_help: str | None = None) -> argparse.Namespace:
    """``params``, the recipe's parameter file, and ``name`` where a stage is given one.

    Raises:
        ConfigError: A section of the file is wrong, be it another stage's, or does not fit another.
    """
    parser = argparse.ArgumentParser(description=description)
    if name_help:
        parser.add_argument("name", help=name_help)
    parser.add_argument(
        "--params", type=Path, default=PARAMS, metavar="FILE", help="the recipe's parameters (params.yaml)"
    )
    arguments = parser.parse_args()
    # By name: what reads every section is in no stage's closure, and changes none of its bytes.
    import_module("pipeline.cli.params").check_params(arguments.params)
    return arguments
