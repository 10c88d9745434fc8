"""``ldp rehearse``: every stage of a recipe, on a few images and steps, before it runs for days."""

import argparse
import csv
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

from pipeline.cli.options import (
    CHANGES,
    JSON,
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
from pipeline.core.files import write_json
from pipeline.core.markdown import markdown_table
from pipeline.core.paths import SPLITS, RunPaths, run_paths
from pipeline.core.progress import describe_bytes
from pipeline.detector.device import device

CODE = Path(__file__).parents[2]
COPIED = ("pipeline", "stages", "dvc.yaml", ".dvcignore")
ROWS = "stages.jsonl"
STDERR = 2
KILLED = 137

logger = logging.getLogger(__name__)


@command(
    RECIPE,
    CHANGES,
    JSON,
    argument("--images", type=int, default=4, metavar="N", help="of each split, the first by id; default: 4"),
    argument("--epochs", type=int, default=1, metavar="E", help="of every training; default: 1"),
    argument(
        "--keep", type=Path, metavar="FOLDER", help="run in this new folder and keep it, with the report"
    ),
)
def rehearse_command(arguments: argparse.Namespace) -> None:
    """Lets DVC run all stages of a recipe in a copy of this tree, and prints what each took and left.

    They run at the recipe's resolution, with its detectors, losses, optimizer and precision, on a few images
    for a few steps. Where the teacher's weights file is missing, random weights of its architecture stand in
    for it. The workspace is not touched.
    """
    require_least(arguments, "rehearse", images=1, epochs=1)
    with copied_recipe(arguments) as (recipe, copy):
        here = {"root": str(Path.cwd()), "file": str(copy)}
        checked = check_params(write_params(override(recipe, here), copy))
        with _folder(arguments.keep) as folder:
            document = rehearse(recipe, checked, folder, arguments.images, arguments.epochs)
    if arguments.json:
        write_json(arguments.json, {"recipe": str(arguments.recipe), **document})
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
    text = "\n".join([table, *document["notes"]]).rstrip()
    sys.stdout.write(f"{arguments.recipe} on {document['device']}\n\n{text}\n")
    last = document["stages"][-1]
    if code := last["exit_code"]:
        how = f"failed with exit code {code}; its own error stands above"
        if code in (KILLED, -9):
            how = "was killed; if it was for memory, LDP_MICRO_BATCH=1 trains with less of it"
        raise PipelineError(f"{arguments.recipe}: stage {last['stage']} {how}")


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


def rehearse(recipe: Params, checked: Recipe, folder: Path, images: int, epochs: int) -> dict[str, Any]:
    """Run all stages of a recipe, or those up to the first that fails.

    Returns:
        The device, notes, what differs from the recipe by dotted key, and a row for each stage that ran.
    """
    path, short = folder / PARAMS, partial(shorten, checked, recipe, images=images, epochs=epochs)
    _copy_tree(folder)
    values, notes = short(batch_size=images)
    write_params(override(recipe, values), path)
    run = RunPaths(folder / run_paths(path).root)
    if _dvc(folder, "repro", "prepare_data") == 0:
        # Only now is it known how many images there are to train on.
        count, processes = count_images(run.manifest("train")), Environment.read().train_processes
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
        row["outcome"] = "failed" if row["exit_code"] else outcome(row["stage"], run)
    return {"device": str(device()), "notes": notes, "changes": differences(recipe, values), "stages": rows}


def _copy_tree(folder: Path) -> None:
    """The code and its stages, each of which is measured as it runs."""
    for name in COPIED:
        copy = shutil.copytree if (CODE / name).is_dir() else shutil.copy
        copy(CODE / name, folder / name)
    stages = (folder / "dvc.yaml").read_text()
    measured = f"cmd: {sys.executable} -m pipeline.cli.stage_process {ROWS} "
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


def outcome(stage: str, run: RunPaths) -> str:
    """What a stage, such as ``train_student ld``, has left in a run's folder, in a few figures."""
    kind, _, name = stage.partition(" ")
    match kind:
        case "check_recipe":
            return "nothing is missing"
        case "prepare_data":
            return ", ".join(f"{count_images(run.manifest(split))} {split} images" for split in SPLITS)
        case "prepare_teacher" | "train_student":
            with ((run.student(name) if name else run.teacher) / "loss.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            if not rows:  # a teacher that was not trained
                return "-"
            first, last = (float(row["loss"]) for row in (rows[0], rows[-1]))
            return f"{rows[-1]['step']} steps, loss {first:.4g} to {last:.4g}"
        case "cache_teacher":
            statistics = _read(run.store / "zarr.json")["attributes"]["statistics"]
            return f"{statistics['views']} views of {describe_bytes(statistics['bytes_per_view'])}"
        case "verify_cache":
            fidelity = _read(run.fidelity)
            return f"loss off by {fidelity['loss_error']:.2g}, gradient by {fidelity['gradient_error']:.2g}"
        case "evaluate":
            return f"AP {_read(run.metrics(name))['AP']}"
    return describe_bytes(run.report.stat().st_size)


def count_images(manifest: Path) -> int:
    """Images that ``prepare_data`` has left of a split."""
    return len(_read(manifest)["images"])


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
