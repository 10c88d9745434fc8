"""``ldp store``: look into a store, check it, repair it, draw it, clear up behind it."""

import argparse
from pathlib import Path

from pipeline.cli.options import add_actions, add_json, add_recipe

ACTIONS = {
    "info": (
        "store_info:print_info",
        "what a store holds, how large it is, and what it was made from",
        "Prints a store's facts from its attributes; reads none of its points, so that it is as fast for a "
        "large store as for a small one. A store with damaged files can be described as well.",
    ),
    "verify": (
        "store_verify:print_problems",
        "read a whole store and compare every file with its recorded sha256",
        "Reads every file of a store. Prints each damaged, missing or unexpected file with its partition; "
        "the exit code is 0 for a whole store, and 1 otherwise.",
    ),
    "repair": (
        "store_repair:run",
        "compute what is damaged in a store again, and nothing else",
        "Reads every file of a store, and makes damaged or missing ones again: tables from the annotations, "
        "shards with the recipe's teacher, which runs on damaged partitions only. A file is "
        "replaced, by a rename, if its new content has the recorded sha256; files that are not part of the "
        "store are removed. A recipe that would make another store is refused. Run it where `dvc repro` "
        "runs.",
    ),
    "show": (
        "store_show:run",
        "draw a stored view with its regions and the teacher's edge distributions",
        "Draws one stored view as a PNG: its boxes; the points of the main and of the valuable region, level "
        "by level; and for a few objects the teacher's four edge distributions at the main-region point "
        "where it is surest of the object's class, with the box that they decode to.",
    ),
    "fidelity": (
        "store_fidelity:run",
        "bytes and errors of the losses for a list of precisions",
        "Quantizes exact teacher outputs with a list of precisions, from float32 to below 2 bits a logit, "
        "and prints for each what the store would take and how far the distillation losses and their "
        "gradients by the student's logits would be off. The outputs come from the recipe's teacher, or from "
        "a lossless store; temperatures and the precision to compare with from the recipe.",
    ),
    "files": (
        "store_info:print_files",
        "list the files of a few partitions, to pull no more than those",
        "Prints the paths of a store's tables and of the shards of some partitions. Only the store's "
        "zarr.json need be here: `dvc pull $(ldp store files --partitions 0 1)` fetches a part of a store, "
        "which `TargetStore.open_partial` reads.",
    ),
    "scratch": (
        "scratch:print_scratch",
        "list what killed runs have left, and remove it",
        "Lists all that takes space outside of runs/: unfinished stores and trainings, with which `dvc "
        "repro` goes on if its parameters fit; finished runs of `ldp seeds`; rehearsals and measurements "
        "that were killed. Says of each how large and how old it is, and whether it can go.",
    ),
}
"""Where each action is, and what it does, in a line and in full."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    add = add_actions(parser, ACTIONS)
    add["show"]("image_id", type=int, metavar="IMAGE_ID")
    store = "its folder, or its recipe by name, folder or file; default: params.yaml"
    for name in ("info", "verify", "repair", "show", "files"):
        add[name]("store", nargs="?", metavar="STORE", help=store)
    for name in ("info", "verify"):
        add[name]("--json", action="store_true", help="print one JSON document instead")
    show, fidelity = add["show"], add["fidelity"]
    show("--view", type=int, metavar="N", help="number of the view; default: its first")
    show("--output", type=Path, metavar="FILE.png", help="default: IMAGE_ID_vN.png in the current folder")
    image = "the image or its folder; default: as the run's manifest says, and gray if there is none"
    show("--image", type=Path, metavar="FILE_OR_FOLDER", help=image)
    add_recipe(fidelity)
    exact = "a lossless store; default: run the teacher"
    fidelity("--stored", type=Path, metavar="STORE", help=exact)
    fidelity("--views", type=int, default=128, help="views of a random sample; default: 128")
    fidelity("--temperature", type=float, help="of LD; default: student.loss.ld_temperature")
    fidelity("--cls-temperature", type=float, help="of class KD; default: student.loss.kd_temperature")
    fidelity("--student", type=Path, metavar="FILE", help="its .safetensors; default: a noisy teacher")
    add_json(fidelity)
    add["files"]("--partitions", type=int, nargs="+", metavar="N", help="numbers from 0; default: all")
    add["scratch"]("--clean", action="store_true", help="remove what can go")
