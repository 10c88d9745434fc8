"""Refuse wrong parameters and missing inputs before anything runs."""

import os
from importlib import import_module
from pathlib import Path

from pipeline.core.environment import main_tree
from pipeline.core.files import write_atomically
from pipeline.core.paths import RUNS, run_paths
from pipeline.core.stage import run_stage, stage_arguments


def main() -> None:
    """Run the stage."""
    params = stage_arguments(__doc__).params
    checks = import_module("pipeline.cli.params")  # by name, as in ``stage_arguments``
    recipe = checks.check_params(params)
    for source in (recipe.data.source, recipe.teacher.source):
        _link_from_main_tree(Path(source))
    checks.check_machine(recipe)
    write_atomically(run_paths(params).checked, b"Every parameter is valid, and every input was there.\n")


def _link_from_main_tree(source: Path) -> None:
    """Link an input, by the first missing part of its path, into a queued experiment's folder."""
    if source.is_relative_to(RUNS):  # which stages write
        return
    for part in reversed((source, *source.parents)):
        if not os.path.lexists(part):
            if (main_tree() / part).exists():
                part.symlink_to(main_tree() / part)
            return


if __name__ == "__main__":
    run_stage(main)
