"""What a stage is told on its command line."""

import argparse
from pathlib import Path

from pipeline.core.config import PARAMS


def stage_arguments(description: str | None, name_help: str | None = None) -> argparse.Namespace:
    """``params``, the recipe's parameter file, and ``name`` where a stage is given one."""
    parser = argparse.ArgumentParser(description=description)
    if name_help:
        parser.add_argument("name", help=name_help)
    parser.add_argument(
        "--params", type=Path, default=PARAMS, metavar="FILE", help="the recipe's parameters (params.yaml)"
    )
    return parser.parse_args()
