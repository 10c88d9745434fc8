"""``ldp teacher``: published checkpoints in, distilled students out."""

import argparse
import logging
from pathlib import Path

import yaml

from pipeline.data.images import PREPROCESSING
from pipeline.detector.checkpoint import load_checkpoint, save_checkpoint
from pipeline.detector.gfl import load_detector, save_detector

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-commands."""
    parser = commands.add_parser("teacher", help="import published checkpoints, export detectors")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    importing = actions.add_parser(
        "import",
        help="turn a .pth checkpoint of the LD repository or mmdetection into a safetensors file",
        description="Reads a checkpoint without running code from it, recognises the architecture, checks "
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


def import_teacher(arguments: argparse.Namespace) -> None:
    """Run ``ldp teacher import``."""
    model = load_checkpoint(arguments.file)
    output: Path = arguments.output or arguments.file.with_suffix(".safetensors")
    save_detector(model, output, {"preprocessing": PREPROCESSING, "source": arguments.file.name})
    parameters = sum(parameter.numel() for parameter in model.parameters())
    described = yaml.safe_dump({"detector": model.config.to_json()}, sort_keys=False)
    logger.info(
        "recognised a GFL detector: %s, %d classes, %.1f M parameters, %d keys, all used once",
        model.config.backbone,
        model.config.num_classes,
        parameters / 1e6,
        len(model.state_dict()),
    )
    logger.info(
        "wrote %s; in params.yaml, under prepare_teacher:\n\nsource: %s\nviews: null\ntrain: null\n%s",
        output,
        output,
        described,
    )


def export_detector(arguments: argparse.Namespace) -> None:
    """Run ``ldp teacher export``."""
    model = load_detector(arguments.weights)
    save_checkpoint(model, arguments.file, {"source": "ld-pipeline", "architecture": model.config.to_json()})
    logger.info("wrote %s: %d keys", arguments.file, len(model.state_dict()))
