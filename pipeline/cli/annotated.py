"""Annotated images for commands: a dataset's folder, or a split of a recipe's."""

import argparse
from pathlib import Path

from pipeline.core.config import PARAMS
from pipeline.core.paths import find_recipe, run_paths
from pipeline.datasets.coco import read_coco
from pipeline.views.manifest import Manifest, read_split

SPLITS = ("train", "val")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Declare ``RECIPE``, ``--dataset`` and ``--split``."""
    named = "its name, folder or file; default: params.yaml"
    parser.add_argument("recipe", nargs="?", default=str(PARAMS), metavar="RECIPE", help=named)
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="with annotations/instances_SPLIT.json and the images in SPLIT/; default: the recipe's",
    )
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val")


def read_dataset(arguments: argparse.Namespace) -> Manifest:
    """The images that the command line names."""
    folder, split = arguments.dataset, arguments.split
    if folder is None:
        return read_split(run_paths(find_recipe(arguments.recipe)), split)
    return read_coco(folder / "annotations" / f"instances_{split}.json", str(folder), split)
