"""``ldp rehearse``: every stage of a recipe, on a few images and steps, before it runs for days."""

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import yaml

from pipeline.cli.params import check_params
from pipeline.cli.stage_processes import StageProcess, run_process, stage_processes
from pipeline.core.config import PARAMS, read_sections
from pipeline.core.environment import Environment, dataset_root
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.files import write_json
from pipeline.core.paths import RUNS, RunPaths
from pipeline.detector.device import device
from pipeline.rehearsal.card import RehearsalCard, StageRow, render_card, render_changes
from pipeline.rehearsal.left import figures_of
from pipeline.rehearsal.overrides import Params, override
from pipeline.rehearsal.shorten import Shortening, differences, shorten, training_notes
from pipeline.rehearsal.stand_ins import find_or_replace
from pipeline.views.manifest import read_manifest

RANDOM_WEIGHTS = Path("weights/random_teacher.safetensors")
"""In the rehearsal's folder."""

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "rehearse",
        help="run every stage of a recipe on a few images and steps, before it runs for days",
        description="Runs all stages of a recipe, one after the other as DVC would, in a temporary folder: "
        "at the recipe's own resolution, with its detectors, losses, optimizer and precision, on a few "
        "images for a few steps. Where the teacher's weights file is not there, random weights of its "
        "architecture stand in for it. Prints what each stage took and left. The workspace is not touched.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, default=PARAMS, metavar="RECIPE", help="a file; default: params.yaml")
    add("--images", type=int, default=4, metavar="N", help="of each split, the first by id; default: 4")
    add("--epochs", type=int, default=1, metavar="E", help="of every training; default: 1")
    add(
        "-S",
        dest="assignments",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="take this value instead of the recipe's, as in `-S prepare_data.coco.root=datasets/sample`",
    )
    add("--keep", type=Path, metavar="FOLDER", help="run in this new folder and keep it, with the report")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    for name in ("images", "epochs"):
        if (value := getattr(arguments, name)) < 1:
            raise ConfigError(f"ldp rehearse: --{name}: expected 1 or more, but got {value}")
    check_params(arguments.recipe)
    recipe = override(read_sections(arguments.recipe), arguments.assignments)
    short = Shortening(images=arguments.images, epochs=arguments.epochs, batch_size=arguments.images)
    with _folder(arguments.keep) as folder:
        card = rehearse(str(arguments.recipe), recipe, short, folder)
        if arguments.json:
            write_json(arguments.json, card.to_json())
    sys.stdout.write(render_card(card))
    _require_success(card)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """An empty folder, which is kept if it has been asked for."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ldp-rehearse-") as name:
            yield Path(name)
        return
    if keep.exists():
        raise ConfigError(f"ldp rehearse: --keep: expected a new folder, but {keep} is there; name another")
    keep.mkdir(parents=True)
    yield keep.absolute()


def rehearse(name: str, recipe: Params, short: Shortening, folder: Path) -> RehearsalCard:
    """Run all stages of a recipe, or those up to the first that fails.

    Args:
        name: Of the recipe, for people.
        recipe: Its parameters.
        short: What is left of it.
        folder: To run in; must be empty.
    """
    _write(recipe, folder)
    check_params(folder / PARAMS)
    computed_on = str(device())
    found, notes = find_or_replace(recipe, folder / RANDOM_WEIGHTS, dataset_root)
    params = shorten(found, short)
    _write(params, folder)
    where = RunPaths(folder / RUNS / params["name"])
    first, *others = stage_processes(params["students"])
    rows = [_run(first, where, folder)]
    if rows[0].spent.succeeded:
        # Only now is it known how many images there are to train on.
        params = shorten(found, replace(short, batch_size=_largest_batch(where)))
        _write(params, folder)
        notes += training_notes(recipe, params)
        _announce(recipe, params, notes)
        rows += _run_until_failure(others, where, folder)
    changes = {key: (before, after) for key, before, after in differences(recipe, params)}
    return RehearsalCard(
        recipe=name, device=computed_on, notes=tuple(notes), changes=changes, stages=tuple(rows)
    )


def _write(params: Params, folder: Path) -> None:
    (folder / PARAMS).write_text(yaml.safe_dump(params, sort_keys=False))


def _largest_batch(where: RunPaths) -> int:
    """Images that there are, or as many of them as the training processes can share equally."""
    images, processes = len(read_manifest(where.manifest("train")).images), Environment.read().train_processes
    return images // processes * processes or images


def _announce(recipe: Params, params: Params, notes: list[str]) -> None:
    logger.info("what is not as in the recipe:\n%s", render_changes([*differences(recipe, params)]))
    for note in notes:
        logger.info("%s", note)


def _run_until_failure(
    processes: Iterable[StageProcess], where: RunPaths, folder: Path
) -> Iterator[StageRow]:
    for process in processes:
        yield (row := _run(process, where, folder))
        if not row.spent.succeeded:
            return


def _run(process: StageProcess, where: RunPaths, folder: Path) -> StageRow:
    logger.info("== %s", process.label)
    spent = run_process(process, folder)
    left = figures_of(process.stage, where, process.student) if spent.succeeded else {}
    return StageRow(stage=process.label, spent=spent, left=left)


def _require_success(card: RehearsalCard) -> None:
    """Refuse a rehearsal whose last stage has failed.

    Raises:
        PipelineError: Names the stage; what was wrong, it has said itself.
    """
    last = card.stages[-1]
    if last.spent.succeeded:
        return
    if last.spent.exit_code == -signal.SIGKILL:
        how = "was killed; if it was for memory, LDP_MICRO_BATCH=1 trains with less of it"
    else:
        how = f"failed with exit code {last.spent.exit_code}; its own error stands above"
    raise PipelineError(f"{card.recipe}: stage {last.stage} {how}")
