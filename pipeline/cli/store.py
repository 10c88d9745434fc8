"""``ldp store``: look into a store, check it, repair it, draw it, clear up behind it."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from pipeline.cli.scratch import clean, list_leftovers, render
from pipeline.cli.store_info import describe_store
from pipeline.cli.store_text import describe_problems, render_problems
from pipeline.core.config import PARAMS
from pipeline.core.errors import CacheError, ConfigError
from pipeline.core.paths import SCRATCH, find_recipe, run_paths
from pipeline.core.progress import counted, describe_bytes, show_counts
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.verify import verify

WIDTH = 100
"""Columns of a terminal that facts are wrapped to."""

ACTIONS = {
    "info": (
        "what a store holds, how large it is, and what it was made from",
        "Prints a store's facts from its attributes; reads none of its points, so that it is as fast for a "
        "large store as for a small one. A store with damaged files can be described as well.",
    ),
    "verify": (
        "read a whole store and compare every file with its recorded sha256",
        "Reads every file of a store. Prints each damaged, missing or unexpected file with its partition; "
        "the exit code is 0 for a whole store, and 1 otherwise.",
    ),
    "repair": (
        "compute what is damaged in a store again, and nothing else",
        "Reads every file of a store, and makes damaged or missing ones again: tables from the annotations, "
        "shards with the recipe's teacher, which runs on damaged partitions only. A file is "
        "replaced, by a rename, if its new content has the recorded sha256; files that are not part of the "
        "store are removed. A recipe that would make another store is refused. Run it where `dvc repro` "
        "runs.",
    ),
    "show": (
        "draw a stored view with its regions and the teacher's edge distributions",
        "Draws one stored view as a PNG: its boxes; the points of the main and of the valuable region, level "
        "by level; and for a few objects the teacher's four edge distributions at the main-region point "
        "where it is surest of the object's class, with the box that they decode to.",
    ),
    "fidelity": (
        "bytes and errors of the losses for a list of precisions",
        "Quantizes exact teacher outputs with a list of precisions, from float32 to below 2 bits a logit, "
        "and prints for each what the store would take and how far the distillation losses and their "
        "gradients by the student's logits would be off. The outputs come from the recipe's teacher, or from "
        "a lossless store; temperatures and the precision to compare with from the recipe.",
    ),
    "files": (
        "list the files of a few partitions, to pull no more than those",
        "Prints the paths of a store's tables and of the shards of some partitions. Only the store's "
        "zarr.json need be here: `dvc pull $(ldp store files --partitions 0 1)` fetches a part of a store, "
        "which `TargetStore.open_partial` reads.",
    ),
    "scratch": (
        "list what killed runs have left, and remove it",
        "Lists all that takes space outside of runs/: unfinished stores and trainings, with which `dvc "
        "repro` goes on if its parameters fit; finished runs of `ldp seeds`; rehearsals and measurements "
        "that were killed. Says of each how large and how old it is, and whether it can go.",
    ),
}
"""What each action does, in a line and in full."""


STORE = "its folder, or its recipe by name, folder or file; default: params.yaml"


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    add = {}
    for name, (words, description) in ACTIONS.items():
        action = actions.add_parser(name, help=words, description=description)
        action.set_defaults(run=RUN.get(name) or _lazily(f"pipeline.cli.store_{name}"))
        add[name] = action.add_argument
    add["show"]("image_id", type=int, metavar="IMAGE_ID")
    for name in ("info", "verify", "repair", "show", "files"):
        add[name]("store", nargs="?", metavar="STORE", help=STORE)
    for name in ("info", "verify"):
        add[name]("--json", action="store_true", help="print one JSON document instead")
    show, fidelity = add["show"], add["fidelity"]
    show("--view", type=int, metavar="N", help="number of the view; default: its first")
    show("--output", type=Path, metavar="FILE.png", help="default: IMAGE_ID_vN.png in the current folder")
    image = "the image or its folder; default: as the run's manifest says, and gray if there is none"
    show("--image", type=Path, metavar="FILE_OR_FOLDER", help=image)
    named = "its name, folder or file; default: params.yaml"
    fidelity("recipe", nargs="?", default=str(PARAMS), metavar="RECIPE", help=named)
    exact = "a lossless store; default: run the teacher"
    fidelity("--stored", type=Path, metavar="STORE", help=exact)
    fidelity("--views", type=int, default=128, help="views of a random sample; default: 128")
    fidelity("--temperature", type=float, help="of LD; default: student.loss.ld_temperature")
    fidelity("--cls-temperature", type=float, help="of class KD; default: student.loss.kd_temperature")
    fidelity("--student", type=Path, metavar="FILE", help="its .safetensors; default: a noisy teacher")
    fidelity("--json", type=Path, metavar="FILE", help="also write the figures here")
    add["files"]("--partitions", type=int, nargs="+", metavar="N", help="numbers from 0; default: all")
    add["scratch"]("--clean", action="store_true", help="remove what can go")


def _lazily(module: str) -> Callable[[argparse.Namespace], None]:
    """``run`` of a module that is imported only then: torch and matplotlib take seconds to load."""
    return lambda arguments: import_module(module).run(arguments)


def find_store(given: str | None) -> tuple[Path, Path]:
    """The folder of a store, and the parameter file of its recipe, by either of them.

    A folder leaves open of which recipe it is: then the file is ``params.yaml``.

    Raises:
        ConfigError: It is neither.
    """
    if given is None:
        return run_paths().store, PARAMS
    try:
        params = find_recipe(given)
    except ConfigError:
        if Path(given).exists() or os.sep in given:
            return Path(given), PARAMS
        raise
    return run_paths(params).store, params


def print_summary(arguments: argparse.Namespace) -> None:
    """Run ``ldp store info``."""
    facts = describe_store(find_store(arguments.store)[0])
    text = yaml.safe_dump(facts, sort_keys=False, width=WIDTH, default_flow_style=None)
    sys.stdout.write(_json(facts) if arguments.json else text)


def print_problems(arguments: argparse.Namespace) -> None:
    """Run ``ldp store verify``."""
    path, _ = find_store(arguments.store)
    with show_counts("verify", " files") as progress:
        problems = verify(path, progress)
    if arguments.json:
        document = {
            "path": str(path),
            "whole": not problems,
            "damaged_partitions": sorted({p.partition for p in problems if p.partition is not None}),
            "problems": [asdict(problem) for problem in problems],
        }
        sys.stdout.write(_json(document))
    else:
        sys.stdout.write(render_problems(problems) or f"{path} is whole: every file is as recorded\n")
    if problems:
        raise CacheError(f"{path}: {describe_problems(problems)}; `ldp store repair` makes them again")


def print_files(arguments: argparse.Namespace) -> None:
    """Run ``ldp store files``."""
    path, _ = find_store(arguments.store)
    records = list(recorded_files(read_finished(path)))
    known = {record.partition for record in records} - {None}
    wanted = set(arguments.partitions or known)
    if not wanted <= known:
        raise CacheError(
            f"{path}: --partitions: expected 0 to {len(known) - 1}, but got {min(wanted - known)}"
        )
    for record in records:
        if record.partition is None or record.partition in wanted:
            sys.stdout.write(f"{path / record.name}\n")


def print_scratch(arguments: argparse.Namespace) -> None:
    """Run ``ldp store scratch``."""
    leftovers = list_leftovers(SCRATCH)
    sys.stdout.write(render(leftovers) or f"{SCRATCH}: nothing is left\n")
    if arguments.clean:
        gone = clean(leftovers)
        freed = describe_bytes(sum(leftover.bytes for leftover in gone))
        sys.stdout.write(f"removed {counted(len(gone), 'folder')}, freed {freed}\n")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


RUN = {"info": print_summary, "verify": print_problems, "files": print_files, "scratch": print_scratch}
"""Actions of this module; the others have a module of their name, which is imported when they run."""
