"""``ldp rehearse``: every stage of a recipe, on a few images and steps, before it runs for days."""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.cli.options import (
    CHANGES,
    RECIPE,
    Params,
    argument,
    command,
    copied_recipe,
    override,
    require_least,
    write_params,
)
from pipeline.cli.params import Recipe, check_params
from pipeline.cli.shorten import differences, shorten
from pipeline.core.config import PARAMS
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.paths import RunPaths, run_paths

CODE = Path(__file__).parents[2]
COPIED = ("pipeline", "stages", "dvc.yaml", ".dvcignore")

logger = logging.getLogger(__name__)


@command(
    RECIPE,
    CHANGES,
    argument("--images", type=int, default=4, metavar="N", help="of each split, the first by id; default: 4"),
    argument("--epochs", type=int, default=1, metavar="E", help="of every training; default: 1"),
    argument(
        "--keep", type=Path, metavar="FOLDER", help="run in this new folder and keep it, with the report"
    ),
)
def rehearse_command(arguments: argparse.Namespace) -> None:
    """Lets DVC run all stages of a recipe in a copy of this tree, and prints their metrics.

    They run at the recipe's resolution, with its detectors, losses, optimizer and precision, on a few images
    for a few steps. Where the teacher's weights file is missing, random weights of its architecture stand in
    for it. The workspace is not touched.
    """
    require_least(arguments, images=1, epochs=1)
    with copied_recipe(arguments) as (recipe, copy):
        place = {"root": str(Path.cwd()), "file": str(copy)}
        checked = check_params(write_params(override(recipe, place), copy))
        with _folder(arguments.keep) as folder:
            code = rehearse(recipe, checked, folder, arguments.images, arguments.epochs)
    if code:
        raise PipelineError(
            f"{arguments.recipe}: a stage failed, whose name and error stand above; if it was killed for "
            "memory, LDP_MICRO_BATCH=1 trains with less of it"
        )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder, which is kept if it has a name."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ldp-rehearse-") as name:
            yield Path(name)
        return
    if keep.exists():
        raise ConfigError(f"ldp rehearse: --keep: expected a new folder, but {keep} is there; name another")
    keep.mkdir(parents=True)
    yield keep.absolute()


def rehearse(recipe: Params, checked: Recipe, folder: Path, images: int, epochs: int) -> int:
    """Run all stages of a recipe, or those up to the first that fails; returns DVC's exit code."""
    for name in COPIED:
        copy = shutil.copytree if (CODE / name).is_dir() else shutil.copy
        copy(CODE / name, folder / name)
    _dvc(folder, "init", "--no-scm", "--quiet")
    path, short = folder / PARAMS, partial(shorten, checked, recipe, images=images, epochs=epochs)
    write_params(override(recipe, short(train_images=1)[0]), path)
    if code := _dvc(folder, "repro", "prepare_data"):
        return code
    # Only now is it known how many images there are to train on.
    manifest = RunPaths(folder / run_paths(path).root).manifest("train")
    count, processes = len(json.loads(manifest.read_text())["images"]), Environment.read().train_processes
    values, notes = short(train_images=count // processes * processes or count)
    write_params(override(recipe, values), path)
    lines = [
        f"  {key}: {'the default' if old is None else old} -> {new}"
        for key, (old, new) in differences(recipe, values).items()
    ]
    logger.info("%s", "\n".join(["what is not as in the recipe:", *lines, *notes]))
    return _dvc(folder, "repro") or _dvc(folder, "metrics", "show")


def _dvc(folder: Path, *arguments: str) -> int:
    """Run DVC to its end."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    settings = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(command, cwd=folder, env=settings) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts DVC, too: its folder must not go before it has ended.
            process.wait()
            raise
