"""``ldp teacher``: published checkpoints in, distilled students out."""

import argparse
from pathlib import Path

from pipeline.cli.options import add_actions, add_json, add_recipe
from pipeline.core.paths import SPLITS

ACTIONS = {
    "import": (
        "checkpoint:import_teacher",
        "turn a .pth checkpoint of the LD repository or mmdetection into a safetensors file",
        "Reads a checkpoint without running code from it, recognizes the architecture, checks that every key "
        "is used once, and writes FILE.safetensors with its description beside it.",
    ),
    "export": (
        "checkpoint:export_detector",
        "write a detector of this project as a .pth checkpoint for mmdetection",
        "Writes the state dict under mmdetection's names: there, a student is a plain GFL.",
    ),
    "evaluate": (
        "teacher_evaluate:run",
        "COCO AP of a teacher, or of what a store holds of it",
        "Runs the teacher of a recipe, or the ONNX file of a description, over a split and prints COCO's "
        "figures in percent. With --stored, detections are decoded from a store's points as well. A store "
        "has class logits in the main region alone, which is where the annotations put the objects: that AP "
        "is not the teacher's own, and stands beside that of the live teacher at the very same points.",
    ),
    "check": (
        "teacher_check:run",
        "find out whether an ONNX teacher's description is right",
        "Runs an ONNX teacher over a few annotated images and compares its boxes with the annotations, as "
        "described and with every usual fault put right: boxes shifted by half a cell, channels swapped, "
        "logits through a sigmoid, edges, points or levels out of order, images fitted otherwise. Prints "
        "what agrees better; the exit code is then 1.",
    ),
}
"""Where each action is, and what it does, in a line and in full."""


def add_command(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    add = add_actions(parser, ACTIONS)
    add["import"]("file", type=Path, help="for example gfl_r101_fpn_mstrain_2x_coco_*.pth")
    add["import"]("--output", type=Path, help="default: the same name with .safetensors")
    add["export"]("weights", type=Path, help="a .safetensors file, such as a student's")
    add["export"]("file", type=Path, help="the .pth file to write")
    add["evaluate"]("--description", type=Path, metavar="FILE.yaml", help="of an ONNX teacher")
    add["check"]("description", type=Path, metavar="FILE.yaml")
    images = "with annotations/instances_SPLIT.json and the images in SPLIT/; default: the recipe's"
    scale = "default: the teacher's fixed input"
    for name in ("evaluate", "check"):
        add_recipe(add[name])
        add[name]("--dataset", type=Path, metavar="FOLDER", help=images)
        add[name]("--split", choices=SPLITS, default="val", help="default: val")
        add[name]("--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help=scale)
    stored = "a store of the recipe's teacher and images"
    add["evaluate"]("--stored", type=Path, metavar="STORE", help=stored)
    add_json(add["evaluate"])
    add["check"]("--images", type=int, default=24, metavar="N", help="default: 24")
