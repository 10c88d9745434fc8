"""Entry point of ``ldp``."""

import argparse
import os
import signal
import sys
from importlib import import_module

from pipeline.core.stage import run_stage

COMMANDS = {
    "recipe": "list the recipes, make a new one, check one before it runs",
    "plan": "what a recipe will cost: views, bytes, hours, and from how many students on it pays",
    "rehearse": "run every stage of a recipe on a few images, before it runs for days",
    "store": "describe, draw, verify, repair or compare a store",
    "seeds": "train and evaluate students with several seeds",
    "teacher": "import, export, check or evaluate a teacher",
    "picture": "draw the edge distributions of teacher and students at one object of a finished run",
    "bench": "what distillation costs here, beside plain training and torchvision",
}
"""Modules of this package, whose ``add_command`` declares the arguments, and what they do."""


def main() -> None:
    """Run ``ldp``."""
    run_stage(_run)


def _run() -> None:
    """Parse the command line and run a sub-command."""
    try:
        try:
            arguments = _parser(sys.argv[1:2]).parse_args()
            arguments.run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has gone; Python would write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _parser(first: list[str]) -> argparse.ArgumentParser:
    """Only the command given is imported, for most load torch; of the others, help is all that is shown."""
    parser = argparse.ArgumentParser(
        prog="ldp", description="Tools around the pipeline; the pipeline itself runs with `dvc repro`."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if [name] == first:
            import_module(f"pipeline.cli.{name}").add_command(command)
    return parser


if __name__ == "__main__":
    main()
