"""``ldp trial``: a few steps of a student, from whatever is here of the store."""

import argparse
import logging
import statistics

from pipeline.core.config import load_student
from pipeline.core.errors import ConfigError
from pipeline.core.paths import require_student, run_paths
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.train import stored_targets, train_student
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.views.manifest import read_split

logger = logging.getLogger(__name__)

COMPARED_SHARE = 5
"""The means of the first and of the last fifth of the steps are shown."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "trial",
        help="train a student for a few steps from the partitions of the store that are here",
        description="A smoke run: trains a student for some steps from the views whose partitions are here "
        "(see `ldp store files`), prints how its losses fell, and writes nothing.",
    )
    parser.add_argument("student", help="a name in params.yaml")
    parser.add_argument("--steps", type=int, default=20, help="default: 20")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    if arguments.steps < 1:
        raise ConfigError(f"ldp trial: --steps: expected 1 or more, but got {arguments.steps}")
    folder = run_paths()
    config = load_student(StudentConfig, require_student(arguments.student))
    store = TargetStore.open_partial(folder.store)
    manifest = read_split(folder, "train")
    logger.info(
        "%d of %d partitions are here: %d of %d views",
        store.schema.partitions - len(store.absent),
        store.schema.partitions,
        len(store),
        store.schema.views,
    )
    curve = train_student(
        config,
        stored_targets(config, store, manifest),
        manifest,
        machine=machine(SINGLE_PROCESS),
        label=arguments.student,
        steps=arguments.steps,
        log_every=1,
    ).curve
    share = max(1, len(curve) // COMPARED_SHARE)
    for term in curve[0].terms:
        first, last = ([row.terms[term] for row in rows] for rows in (curve[:share], curve[-share:]))
        logger.info("%s: %.4g -> %.4g", term, statistics.fmean(first), statistics.fmean(last))
