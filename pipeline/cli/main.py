"""Entry point of ``ldp``."""

import argparse
import os
import signal
import sys
from importlib import import_module

from pipeline.core.environment import run_stage

COMMANDS = ("recipe", "plan", "rehearse", "store", "seeds", "trial", "online", "teacher", "bench")
"""Modules of this package; each declares the sub-command of its name."""


def main() -> None:
    """Run ``ldp``."""
    run_stage(_run)


def _run() -> None:
    """Parse the command line and run a sub-command."""
    parser = argparse.ArgumentParser(
        prog="ldp", description="Tools around the pipeline; the pipeline itself runs with `dvc repro`."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    # Only the command that is asked for is imported, for most load torch; for a list of all, all are.
    asked = [name for name in sys.argv[1:2] if name in COMMANDS]
    for name in asked or COMMANDS:
        import_module(f"pipeline.cli.{name}").add_command(commands)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads this, such as `head`, has seen enough; Python would write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


if __name__ == "__main__":
    main()
