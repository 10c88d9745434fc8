"""``ldp teacher evaluate``: COCO AP of any teacher."""

import argparse
import sys
from pathlib import Path

from pipeline.cli.options import JSON, RECIPE, argument, command
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import SPLITS, find_recipe, run_paths
from pipeline.core.tables import markdown_table
from pipeline.datasets.coco import read_coco
from pipeline.detector.device import device
from pipeline.evaluation.coco_ap import SUMMARY, evaluate
from pipeline.evaluation.detect import detect
from pipeline.onnx.models import ModelHandle, open_model, read_onnx
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.summary import AREA_EDGES

DATASET = (
    RECIPE,
    argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="with annotations/instances_SPLIT.json and the images in SPLIT/; default: the recipe's",
    ),
    argument("--split", choices=SPLITS, default="val", help="default: val"),
    argument(
        "--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="default: the teacher's fixed input"
    ),
)


@command(argument("--description", type=Path, metavar="FILE.yaml", help="of an ONNX teacher"), *DATASET, JSON)
def evaluate_command(arguments: argparse.Namespace) -> None:
    """Runs a recipe's teacher, or an ONNX file, over a split and prints COCO's figures in percent."""
    manifest = read_dataset(arguments)
    if arguments.description:
        handle: ModelHandle = read_onnx(arguments.description, manifest.categories)
    else:
        handle = open_model(run_paths(find_recipe(arguments.recipe)).teacher_weights, manifest.categories)
    results = detect(
        handle.load(),
        manifest,
        choose_scale(handle, arguments.scale),
        batch_size=Environment.read().eval_batch,
        device=device(),
        label="evaluate",
    )
    summary, name = evaluate(manifest, results, AREA_EDGES).summary, handle.spec.name
    cells = ["-" if (value := summary[metric]) is None else f"{value:.2f}" for metric in SUMMARY]
    sys.stdout.write(markdown_table(["", *SUMMARY], [[name, *cells]]))
    if arguments.json:
        write_json(arguments.json, {name: dict(summary)})


def read_dataset(arguments: argparse.Namespace) -> Manifest:
    """Annotated images: a dataset's folder, or a split of a recipe's, as the command line names them."""
    folder, split = arguments.dataset, arguments.split
    if folder is None:
        return read_split(run_paths(find_recipe(arguments.recipe)), split)
    return read_coco(folder / "annotations" / f"instances_{split}.json", str(folder), split)


def choose_scale(handle: ModelHandle, given: list[int] | None) -> tuple[int, int]:
    """The test scale: as given, or the size of the teacher's input; a ``ConfigError`` if it does not fit."""
    if given is not None:
        scale = (given[0], given[1])
        handle.spec.require_scales([scale], "--scale")
        return scale
    if handle.spec.input_hw is None:
        raise ConfigError(f"{handle.spec.name} takes images of any size: expected --scale LONG SHORT")
    height, width = handle.spec.input_hw
    return width, height
