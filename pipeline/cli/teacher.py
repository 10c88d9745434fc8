"""``ldp teacher``: published checkpoints in, distilled students out."""

import argparse
import logging
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import yaml

from pipeline.cli.annotated import add_dataset
from pipeline.cli.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import short_repr
from pipeline.detector.gfl import load_detector, read_description, save_detector
from pipeline.detector.given import CLASS_NAMES, described_classes

logger = logging.getLogger(__name__)


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    importing = actions.add_parser(
        "import",
        help="turn a .pth checkpoint of the LD repository or mmdetection into a safetensors file",
        description="Reads a checkpoint without running code from it, recognizes the architecture, checks "
        "that every key is used once, and writes FILE.safetensors with its description beside it.",
    )
    importing.add_argument("file", type=Path, help="for example gfl_r101_fpn_mstrain_2x_coco_*.pth")
    importing.add_argument("--output", type=Path, help="default: the same name with .safetensors")
    importing.set_defaults(run=import_teacher)
    exporting = actions.add_parser(
        "export",
        help="write a detector of this project as a .pth checkpoint for mmdetection",
        description="Writes the state dict under mmdetection's names: there, a student is a plain GFL.",
    )
    exporting.add_argument("weights", type=Path, help="a .safetensors file, such as a student's")
    exporting.add_argument("file", type=Path, help="the .pth file to write")
    exporting.set_defaults(run=export_detector)
    _add_evaluate(actions)
    _add_check(actions)


def _add_evaluate(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "evaluate",
        help="COCO AP of a teacher, or of what a store holds of it",
        description="Runs the teacher of a recipe, or the ONNX file of a description, over a split and "
        "prints COCO's figures in percent. With --stored, detections are decoded from a store's points as "
        "well. A store has class logits in the main region alone, which is where the annotations put the "
        "objects: that AP is not the teacher's own, and stands beside that of the live teacher at the very "
        "same points.",
    )
    parser.add_argument("--description", type=Path, metavar="FILE.yaml", help="of an ONNX teacher")
    add_dataset(parser)
    _add_scale(parser)
    parser.add_argument(
        "--stored", type=Path, metavar="STORE", help="a store of the recipe's teacher and images"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=_lazily("pipeline.cli.teacher_evaluate"))


def _add_check(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "check",
        help="find out whether an ONNX teacher's description is right",
        description="Runs an ONNX teacher over a few annotated images and compares its boxes with the "
        "annotations, as described and with every usual fault put right: boxes shifted by half a cell, "
        "channels swapped, logits through a sigmoid, edges, points or levels out of order, images fitted "
        "otherwise. Prints what agrees better; the exit code is then 1.",
    )
    parser.add_argument("description", type=Path, metavar="FILE.yaml")
    add_dataset(parser)
    _add_scale(parser)
    parser.add_argument("--images", type=int, default=24, metavar="N", help="default: 24")
    parser.set_defaults(run=_lazily("pipeline.cli.teacher_check"))


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="default: the teacher's fixed input"
    )


def _lazily(module: str) -> Callable[[argparse.Namespace], None]:
    return lambda arguments: import_module(module).run(arguments)


def import_teacher(arguments: argparse.Namespace) -> None:
    """Run ``ldp teacher import``."""
    model, facts = load_checkpoint(arguments.file)
    output: Path = arguments.output or arguments.file.with_suffix(".safetensors")
    save_detector(model, output, {"source": arguments.file.name, **facts})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    described = yaml.safe_dump({"detector": model.config.to_json()}, sort_keys=False)
    logger.info(
        "recognized a GFL detector: %s, %d classes, %.1f M parameters, %d keys, all used once",
        model.config.backbone,
        model.config.num_classes,
        parameters / 1e6,
        len(model.state_dict()),
    )
    names = facts.get(CLASS_NAMES)
    if names is None:
        logger.warning(
            "%s: it names no classes; write them into %s, under %r, in the order of its channels",
            arguments.file,
            output.with_suffix(".json"),
            CLASS_NAMES,
        )
    else:
        logger.info("its classes: %s", short_repr(names))
    logger.info(
        "wrote %s; in params.yaml, under prepare_teacher:\n\nsource: %s\nviews: null\ntrain: null\n%s",
        output,
        output,
        described,
    )


def export_detector(arguments: argparse.Namespace) -> None:
    """Run ``ldp teacher export``."""
    model = load_detector(arguments.weights)
    document = read_description(arguments.weights)
    names = [name for _, name in described_classes(document, arguments.weights.with_suffix(".json"))]
    meta = {"source": "ld-pipeline"} | ({"CLASSES": tuple(names)} if names else {})
    save_checkpoint(model, arguments.file, meta)
    logger.info("wrote %s: %d keys", arguments.file, len(model.state_dict()))
