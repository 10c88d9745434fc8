"""``ldp store``: look into a store, check it, repair it, draw it, clear up behind it."""

import argparse
import json
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
from pipeline.core.errors import CacheError
from pipeline.core.paths import SCRATCH, run_paths
from pipeline.core.progress import counted, describe_bytes, show_counts
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.verify import Problem, verify

WIDTH = 100
"""Columns of a terminal that facts are wrapped to."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-commands."""
    parser = commands.add_parser("store", help="describe, check, repair or draw a store of targets")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_info(actions)
    _add_verify(actions)
    _add_repair(actions)
    _add_show(actions)
    _add_fidelity(actions)
    _add_files(actions)
    _add_scratch(actions)


def _add_info(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "info",
        help="what a store holds, how large it is, and what it was made from",
        description="Prints a store's facts from its attributes; reads none of its points, so that it is as "
        "fast for a large store as for a small one. A store with damaged files can be described as well.",
    )
    _add_path(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead")
    parser.set_defaults(run=print_summary)


def _add_verify(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "verify",
        help="read a whole store and compare every file with its recorded sha256",
        description="Reads every file of a store. Prints each damaged, missing or unexpected file with its "
        "partition; the exit code is 0 for a whole store, and 1 otherwise.",
    )
    _add_path(parser)
    parser.add_argument("--json", action="store_true", help="print the problems as one JSON document")
    parser.set_defaults(run=print_problems)


def _add_repair(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "repair",
        help="compute what is damaged in a store again, and nothing else",
        description="Reads every file of a store, and makes damaged or missing ones again: tables from the "
        "annotations, shards with the teacher of this workspace, which runs on damaged partitions only. A "
        "file is replaced, by a rename, if its new content has the recorded sha256; files that are not part "
        "of the store are removed. A workspace that would make another store is refused. Run it where "
        "`dvc repro` runs.",
    )
    _add_path(parser)
    parser.set_defaults(run=_lazily("pipeline.cli.store_repair"))


def _add_show(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "show",
        help="draw a stored view with its regions and the teacher's edge distributions",
        description="Draws one stored view as a PNG: its boxes; the points of the main and of the valuable "
        "region, level by level; and for a few objects the teacher's four edge distributions at the "
        "main-region point where it is surest of the object's class, with the box that they decode to.",
    )
    parser.add_argument("image_id", type=int, metavar="IMAGE_ID")
    _add_path(parser)
    parser.add_argument("--view", type=int, metavar="N", help="number of the view; default: its first")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.png", help="default: IMAGE_ID_vN.png in the current folder"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="the image, or the folder that it is in; default: as the run's manifest says, and gray if "
        "there is none",
    )
    parser.set_defaults(run=_lazily("pipeline.cli.store_show"))


def _add_fidelity(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "fidelity",
        help="bytes and errors of the losses for a list of precisions",
        description="Quantizes exact teacher outputs with a list of precisions, from float32 to below 2 bits "
        "a logit, and prints for each what the store would take and how far the distillation losses and "
        "their gradients by the student's logits would be off. The outputs come from this workspace's "
        "teacher, or from a lossless store. Temperatures and the precision to compare with come from "
        "params.yaml.",
    )
    add = parser.add_argument
    add("path", type=Path, nargs="?", metavar="PATH", help="a lossless store; default: run the teacher")
    add("--views", type=int, default=128, help="views of a random sample; default: 128")
    add("--temperature", type=float, help="of LD; default: verify_cache.temperature")
    add("--cls-temperature", type=float, help="of the class KD; default: verify_cache.cls_temperature")
    add("--student", type=Path, metavar="FILE", help="a student's .safetensors; default: a noisy teacher")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=_lazily("pipeline.cli.store_fidelity"))


def _add_files(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "files",
        help="list the files of a few partitions, to pull no more than those",
        description="Prints the paths of a store's tables and of the shards of some partitions. Only the "
        "store's zarr.json need be here: `dvc pull $(ldp store files --partitions 0 1)` fetches a part of a "
        "store, which `TargetStore.open_partial` reads.",
    )
    _add_path(parser)
    parser.add_argument("--partitions", type=int, nargs="+", metavar="N", help="numbers from 0; default: all")
    parser.set_defaults(run=print_files)


def _add_scratch(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "scratch",
        help="list what killed runs have left, and remove it",
        description="Lists all that takes space outside of runs/: unfinished stores and trainings, with "
        "which `dvc repro` goes on if its parameters fit; finished runs of `ldp seeds`; rehearsals and "
        "measurements that were killed. Says of each how large and how old it is, and whether it can go.",
    )
    parser.add_argument("--clean", action="store_true", help="remove what can go")
    parser.set_defaults(run=run_scratch)


def _add_path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path",
        type=Path,
        nargs="?",
        metavar="PATH",
        help="folder of the store; default: that of params.yaml, runs/NAME/cache/targets.zarr",
    )


def _lazily(module: str) -> Callable[[argparse.Namespace], None]:
    """``run`` of a module that is imported only then: torch and matplotlib take seconds to load."""
    return lambda arguments: import_module(module).run(arguments)


def store_path(arguments: argparse.Namespace) -> Path:
    """The store that is meant: the given one, or that of ``params.yaml``."""
    return arguments.path or run_paths().store


def print_summary(arguments: argparse.Namespace) -> None:
    """Run ``ldp store info``."""
    facts = describe_store(store_path(arguments))
    text = yaml.safe_dump(facts, sort_keys=False, width=WIDTH, default_flow_style=None)
    _print(_json(facts) if arguments.json else text)


def print_problems(arguments: argparse.Namespace) -> None:
    """Run ``ldp store verify``."""
    path = store_path(arguments)
    with show_counts("verify", " files") as progress:
        problems = verify(path, progress)
    if arguments.json:
        _print(_json(_problems_document(path, problems)))
    else:
        _print(render_problems(problems) or f"{path} is whole: every file is as recorded\n")
    if problems:
        raise CacheError(f"{path}: {describe_problems(problems)}; `ldp store repair` makes them again")


def print_files(arguments: argparse.Namespace) -> None:
    """Run ``ldp store files``."""
    path = store_path(arguments)
    records = list(recorded_files(read_finished(path)))
    known = {record.partition for record in records} - {None}
    wanted = set(arguments.partitions or known)
    if not wanted <= known:
        raise CacheError(
            f"{path}: --partitions: expected 0 to {len(known) - 1}, but got {min(wanted - known)}"
        )
    for record in records:
        if record.partition is None or record.partition in wanted:
            _print(f"{path / record.name}\n")


def _problems_document(path: Path, problems: list[Problem]) -> dict[str, Any]:
    partitions = {problem.partition for problem in problems} - {None}
    return {
        "path": str(path),
        "whole": not problems,
        "damaged_partitions": sorted(index for index in partitions if index is not None),
        "problems": [asdict(problem) for problem in problems],
    }


def run_scratch(arguments: argparse.Namespace) -> None:
    """Run ``ldp store scratch``."""
    leftovers = list_leftovers(SCRATCH)
    _print(render(leftovers) or f"{SCRATCH}: nothing is left\n")
    if arguments.clean:
        gone = clean(leftovers)
        freed = describe_bytes(sum(leftover.bytes for leftover in gone))
        _print(f"removed {counted(len(gone), 'folder')}, freed {freed}\n")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _print(text: str) -> None:
    sys.stdout.write(text)
