"""Entry point of ``ldp``."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import cleandoc

from pipeline.core.stage import run_stage

COMMANDS = {
    "recipe": ("recipe", "list the recipes, add one to what DVC runs, make a new one, check one"),
    "recipe add": ("recipe", "let DVC know a recipe: put a copy of dvc.yaml beside its parameters"),
    "recipe new": ("recipe", "make recipes/NAME from another recipe, or for a COCO folder"),
    "recipe check": ("recipe", "check a recipe, its images and its teacher before anything runs"),
    "plan": ("costs", "what a recipe will cost: views, bytes, hours; from how many students on it pays"),
    "rehearse": ("rehearse", "run every stage of a recipe on a few images, before it runs for days"),
    "store": ("", "describe, draw, verify or repair a store"),
    "store info": ("store", "what a store holds, how large it is, and what it was made from"),
    "store verify": ("store", "read a whole store and compare every file with its recorded sha256"),
    "store repair": ("store_repair", "compute what is damaged in a store again, and nothing else"),
    "store show": ("pictures", "draw a stored view with its regions and the teacher's distributions"),
    "seeds": ("seeds", "train and evaluate students with several seeds"),
    "teacher": ("", "import, export, check or evaluate a teacher"),
    "teacher import": ("checkpoint", "turn a .pth file of the LD repository or mmdetection into safetensors"),
    "teacher export": ("checkpoint", "write a detector of this project as a .pth file for mmdetection"),
    "teacher evaluate": ("teacher", "COCO AP of any teacher"),
    "teacher check": ("teacher", "find out whether an ONNX teacher's description is right"),
    "picture": ("pictures", "draw the distributions of teacher and students at one object of a finished run"),
    "bench": ("costs", "what distillation costs here, beside plain training and torchvision"),
}
"""The module of this package that has its ``LAST_WORD_command``, and what it does, by a command's words."""


def main() -> None:
    """Run ``ldp``, with a stage's log and errors."""
    run_stage(_run)


def _run() -> None:
    description = "Tools around the pipeline; the pipeline itself runs with `dvc repro`."
    parser = argparse.ArgumentParser(prog="ldp", description=description)
    try:
        try:
            _declare(parser, [], sys.argv[1:])
            arguments = parser.parse_args()
            arguments.run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has gone; Python would write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _declare(parser: argparse.ArgumentParser, words: list[str], rest: Sequence[str]) -> None:
    """Only the command given is imported, for most load torch; of the others, help is all that is shown."""
    module = COMMANDS[" ".join(words)][0] if words else ""
    if module:
        command = getattr(import_module(f"pipeline.cli.{module}"), f"{words[-1]}_command")
        parser.description = cleandoc(command.run.__doc__).replace("``", "`")
        parser.set_defaults(run=command.run)
        for names, options in command.arguments:
            parser.add_argument(*names, **options)
    if names := [name for name in COMMANDS if name.split()[:-1] == words]:
        what = "action" if words else "command"
        group = parser.add_subparsers(title=f"{what}s", required=not module, metavar=what.upper())
        for name in names:
            child = group.add_parser(name.split()[-1], help=COMMANDS[name][1])
            if [child.prog.split()[-1]] == list(rest[:1]):
                _declare(child, name.split(), rest[1:])


if __name__ == "__main__":
    main()
