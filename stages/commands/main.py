"""Entry point of ``ldp``."""

import argparse

from stages.commands import online, seeds, teacher
from stages.runtime import run_stage


def main() -> None:
    """Parse the command line and run a sub-command."""
    parser = argparse.ArgumentParser(
        prog="ldp", description="Tools around the pipeline; the pipeline itself runs with `dvc repro`."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    seeds.add_command(commands)
    online.add_command(commands)
    teacher.add_command(commands)
    arguments = parser.parse_args()
    run_stage(lambda: arguments.run(arguments))
