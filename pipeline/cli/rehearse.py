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
from typing import Any

from pipeline.cli.params import Recipe, check_params
from pipeline.cli.recipe_options import add_recipe, copied_recipe, require_least
from pipeline.core.config import PARAMS
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.files import write_json
from pipeline.core.markdown import markdown_table
from pipeline.core.paths import run_paths
from pipeline.cost.overrides import Params, override, write_params
from pipeline.cost.rehearsal import count_images, differences, outcome, shorten
from pipeline.detector.device import device

CODE = Path(__file__).parents[2]
COPIED = ("pipeline", "stages", "dvc.yaml", ".dvcignore")
ROWS = "stages.jsonl"
STDERR = 2
KILLED = 137

logger = logging.getLogger(__name__)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Lets DVC run all stages of a recipe in a temporary copy of this tree: at the recipe's "
        "resolution, with its detectors, losses, optimizer and precision, on a few images for a few steps. "
        "Where the teacher's weights file is missing, random weights of its architecture stand in for it. "
        "Prints what each stage took and left. The workspace is not touched."
    )
    add_recipe(parser)
    add = parser.add_argument
    add("--images", type=int, default=4, metavar="N", help="of each split, the first by id; default: 4")
    add("--epochs", type=int, default=1, metavar="E", help="of every training; default: 1")
    add("--keep", type=Path, metavar="FOLDER", help="run in this new folder and keep it, with the report")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    require_least(arguments, "rehearse", images=1, epochs=1)
    with copied_recipe(arguments) as (recipe, copy):
        here = {"root": str(Path.cwd()), "file": str(copy)}
        checked = check_params(write_params(override(recipe, here), copy))
        with _folder(arguments.keep) as folder:
            document = rehearse(recipe, checked, folder, arguments.images, arguments.epochs)
    if arguments.json:
        write_json(arguments.json, {"recipe": str(arguments.recipe), **document})
    sys.stdout.write(f"{arguments.recipe} on {document['device']}\n\n{render(document)}")
    _require_success(str(arguments.recipe), document["stages"])


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder, which is kept if that is asked for."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ldp-rehearse-") as name:
            yield Path(name)
        return
    if keep.exists():
        raise ConfigError(f"ldp rehearse: --keep: expected a new folder, but {keep} is there; name another")
    keep.mkdir(parents=True)
    yield keep.absolute()


def rehearse(recipe: Params, checked: Recipe, folder: Path, images: int, epochs: int) -> dict[str, Any]:
    """Run all stages of a recipe, or those up to the first that fails.

    Returns:
        The device, notes, what differs from the recipe by dotted key, and a row for each stage that ran.
    """
    path = folder / PARAMS
    short = partial(
        shorten,
        checked.data,
        checked.teacher,
        checked.students,
        recipe,
        images=images,
        epochs=epochs,
    )
    _copy_tree(folder)
    values, notes = short(batch_size=images)
    write_params(override(recipe, values), path)
    paths = run_paths(path)
    if _dvc(folder, "repro", "prepare_data") == 0:
        # Only now is it known how many images there are to train on.
        count, processes = count_images(folder / paths.manifest("train")), Environment.read().train_processes
        values, notes = short(batch_size=count // processes * processes or count)
        write_params(override(recipe, values), path)
        lines = [
            f"  {key}: {'the default' if old is None else old} -> {new}"
            for key, (old, new) in differences(recipe, values).items()
        ]
        logger.info("%s", "\n".join(["what is not as in the recipe:", *lines, *notes]))
        _dvc(folder, "repro")
    rows = [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]
    for row in rows:
        row["outcome"] = "failed" if row["exit_code"] else outcome(row["stage"], folder / paths.root)
    return {"device": str(device()), "notes": notes, "changes": differences(recipe, values), "stages": rows}


def _copy_tree(folder: Path) -> None:
    """The code and its stages, each of which is measured as it runs."""
    for name in COPIED:
        copy = shutil.copytree if (CODE / name).is_dir() else shutil.copy
        copy(CODE / name, folder / name)
    stages = (folder / "dvc.yaml").read_text()
    measured = f"cmd: {sys.executable} -m pipeline.cost.stage_process {ROWS} "
    (folder / "dvc.yaml").write_text(stages.replace("cmd: python -m ", measured))
    _dvc(folder, "init", "--no-scm", "--quiet")


def _dvc(folder: Path, *arguments: str) -> int:
    """Run DVC to its end; its output goes to standard error."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    settings = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments], cwd=folder, env=settings, stdout=STDERR
    ) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts DVC, too: its folder must not go before it has ended.
            process.wait()
            raise


def render(document: dict[str, Any]) -> str:
    """A row for each stage, and what must be known of them, as Markdown."""
    rows = [
        [
            row["stage"],
            *(f"{row[name]:.1f}" for name in ("seconds", "cpu_seconds")),
            f"{row['peak_bytes'] / 1e6:,.0f}",
            row["outcome"],
        ]
        for row in document["stages"]
    ]
    table = markdown_table(["stage", "seconds", "CPU seconds", "peak MB", "left"], rows)
    return "\n".join([table, *document["notes"]]).rstrip() + "\n"


def _require_success(recipe: str, rows: list[dict[str, Any]]) -> None:
    """Refuse a rehearsal whose last stage failed.

    Raises:
        PipelineError: Names the stage, whose own error stands above.
    """
    if (code := rows[-1]["exit_code"]) == 0:
        return
    how = f"failed with exit code {code}; its own error stands above"
    if code in (KILLED, -9):
        how = "was killed; if it was for memory, LDP_MICRO_BATCH=1 trains with less of it"
    raise PipelineError(f"{recipe}: stage {rows[-1]['stage']} {how}")
