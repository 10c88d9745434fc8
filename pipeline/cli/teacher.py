"""``ldp teacher evaluate`` and ``check``: how good a teacher is, and whether its description is right."""

import argparse
import sys
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from pipeline.cli.diagnosis import Verdict, diagnose
from pipeline.cli.options import RECIPE, argument, command, require_least
from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError, DatasetError, TeacherError, listed
from pipeline.core.paths import SPLITS, find_recipe, run_paths
from pipeline.core.tables import markdown_table
from pipeline.datasets.coco import read_coco
from pipeline.detector.device import device
from pipeline.detector.head import EDGES
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.model import import_optional
from pipeline.onnx.models import ModelHandle, open_model, read_onnx
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.summary import AREA_EDGES

COLUMNS = {"AP": "ap", "recall": "recall", "any": "blind_recall", "score+-": "score_error"}
"""Figures of an ``Agreement`` by their headings."""
MIN_TRUE_SCORE = 0.05
"""Mean probability of the true class at the main region's points below which class KD teaches nothing."""

DATASET = (
    RECIPE,
    argument("--dataset", type=Path, metavar="FOLDER", help="in COCO's layout; default: the recipe's"),
    argument("--split", choices=SPLITS, default="val", help="default: val"),
    argument("--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="default: the teacher's input"),
)


@command(argument("--description", type=Path, metavar="FILE.yaml", help="of an ONNX teacher"), *DATASET)
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
    summary = evaluate(manifest, results, AREA_EDGES).summary
    cells = ["-" if value is None else f"{value:.2f}" for value in summary.values()]
    sys.stdout.write(markdown_table(["", *summary], [[handle.spec.name, *cells]]))


def read_dataset(arguments: argparse.Namespace) -> Manifest:
    """Annotated images: a split of a dataset's folder, or of a recipe's dataset."""
    folder, split = arguments.dataset, arguments.split
    if folder is None:
        return read_split(run_paths(find_recipe(arguments.recipe)), split)
    return read_coco(folder / "annotations" / f"instances_{split}.json", str(folder), split)


def choose_scale(handle: ModelHandle, given: list[int] | None) -> tuple[int, int]:
    """The test scale: as given, or the size of the teacher's input; a ``ConfigError`` if it does not fit."""
    if given is None and handle.spec.input_hw is None:
        raise ConfigError(f"{handle.spec.name} takes images of any size: expected --scale LONG SHORT")
    long, short = given or list(handle.spec.input_hw or ())[::-1]
    handle.spec.require_scales([(long, short)], "--scale")
    return long, short


@command(
    argument("description", type=Path, metavar="FILE.yaml"),
    *DATASET,
    argument("--images", type=int, default=24, metavar="N", help="default: 24"),
)
def check_command(arguments: argparse.Namespace) -> None:
    """Runs an ONNX teacher over a few annotated images and compares its boxes with the annotations.

    It is run as described and with every usual fault put right: boxes shifted by half a cell, channels
    swapped, logits through a sigmoid, edges, points or levels out of order, images fitted otherwise. Prints
    what agrees better; the exit code is then 1.
    """
    require_least(arguments, images=1)
    manifest = read_dataset(arguments)
    images = manifest.images[np.flatnonzero(np.diff(manifest.images.offset))[: arguments.images]]
    if not images:
        where = f"{manifest.root}/{manifest.folder}"
        raise DatasetError(f"{where}: expected annotated images, but there are none")
    model = read_onnx(arguments.description, manifest.categories)
    scale = choose_scale(model, arguments.scale)
    verdict = diagnose(model, replace(manifest, images=images), scale, device())
    sys.stdout.write(render(verdict))
    if verdict.suspects:
        best = verdict.suspects[0]
        raise TeacherError(f"{arguments.description}: {best.fault}; try {best.remedy}")
    if weakness := verdict.described.weakness:
        if not model.description.module:
            with suppress(TeacherError):  # without the package onnx, nothing is listed
                names = candidate_tensors(model.weights, model.description, scale[::-1])
                sys.stdout.write(f"tensors of the graph whose shapes would do: {listed(names) or 'none'}\n")
        raise TeacherError(f"{arguments.description}: {weakness}")
    sys.stdout.write("nothing looks wrong: no other description finds the objects better\n")


def render(verdict: Verdict) -> str:
    """The figures as described, and of what agrees better."""
    rows = [("as described", verdict.described)]
    rows += [(f"{fault}: {remedy}", figures) for fault, remedy, figures in verdict.suspects[:3]]
    cells = [[name, *(f"{getattr(row, figure):.3f}" for figure in COLUMNS.values())] for name, row in rows]
    silent = verdict.true_score < MIN_TRUE_SCORE
    return markdown_table(["", *COLUMNS], cells) + (
        f"mean probability of the true class at the main region's points: {verdict.true_score:.3f}"
        f"{'; class distillation would teach nothing there: set kd_weight to 0' if silent else ''}\n"
    )


def candidate_tensors(path: Path, description: OnnxDescription, input_hw: tuple[int, int]) -> list[str]:
    """Name and shape of each tensor of a graph that could be logits of all points, or of those of a level."""
    onnx = import_optional("onnx", "looking into the graph")
    model = onnx.load(str(path), load_external_data=False)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[1:], (3, *input_hw), strict=False):
        dim.dim_value = dim.dim_value or size
    graph = onnx.shape_inference.infer_shapes(model).graph
    grid = description.conventions.pyramid(description.points.strides).grid(input_hw)
    classes = len(description.classes)
    # As described, or usual: of NanoDet and PicoDet, YOLOv8 and its heirs, GFL.
    edges = {EDGES * bins for bins in (description.edges.bins, 8, 16, 17)}
    widths = {classes, *edges, *(classes + width for width in edges)}
    numbers = {points * width for points in (len(grid), *grid.lengths) for width in widths}
    tensors = (*graph.value_info, *graph.output)
    shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim][1:] for each in tensors}
    return [
        f"{name} {shape}"
        for name, shape in shapes.items()
        if len(shape) > 1 and prod(shape) in numbers and widths & {shape[0], shape[-1]}
    ]
