"""Annotated images for commands: a dataset's folder, or the split of this workspace."""

import argparse
from pathlib import Path

from pipeline.core.paths import run_paths
from pipeline.datasets.coco import read_coco
from pipeline.views.manifest import Manifest, read_split

SPLITS = ("train", "val")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    """Declare ``--dataset`` and ``--split``."""
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="with annotations/instances_SPLIT.json and the images in SPLIT/; default: of this workspace",
    )
    parser.add_argument("--split", choices=SPLITS, default="val", help="default: val")


def read_dataset(arguments: argparse.Namespace) -> Manifest:
    """The images that the command line names."""
    folder, split = arguments.dataset, arguments.split
    if folder is None:
        return read_split(run_paths(), split)
    return read_coco(folder / "annotations" / f"instances_{split}.json", str(folder), split)
