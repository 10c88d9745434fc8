"""``ldp bench``: measure what the library costs, with commands that anyone can repeat."""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from pipeline.benchmark.reading import ReadingConfig, measure_reading
from pipeline.benchmark.tables import render_reading
from pipeline.errors import ConfigError
from stages.runtime import write_json

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-commands."""
    parser = commands.add_parser("bench", help="measure what the library costs on this machine")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_read(actions)


def _add_read(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "read",
        help="read views in random order, beside zarr, .npz, .pt and a memory map",
        description="Reads single views by key in random order with this project's reader, plain zarr, files "
        "of other formats with the same content, and tensorstore and zarrs if they are installed; checks "
        "first that all read the same values. Prints CPU time a view, and the views per second of a data "
        "loader's workers.",
    )
    add = parser.add_argument
    add("--store", type=Path, metavar="PATH", help="a finished store; default: one is generated")
    add("--views", type=int, default=500, help="views to read; default: 500")
    add("--points", type=int, default=900, help="mean kept points of a generated view; default: 900")
    add("--repeats", type=int, default=7, help="how often each reader reads each view; default: 7")
    add("--workers", type=int, default=2, help="processes of the data loader, 0 for none; default: 2")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=read)


def read(arguments: argparse.Namespace) -> None:
    """Run ``ldp bench read``."""
    for name, least in (("views", 1), ("points", 2), ("repeats", 1), ("workers", 0)):
        value = getattr(arguments, name)
        if value < least:
            raise ConfigError(f"ldp bench read: --{name}: expected {least} or more, but got {value}")
    config = ReadingConfig(
        store=arguments.store,
        views=arguments.views,
        points=arguments.points,
        repeats=arguments.repeats,
        workers=arguments.workers,
    )
    with tempfile.TemporaryDirectory(prefix="ldp-bench-") as folder:
        measured = measure_reading(config, Path(folder))
    sys.stdout.write(render_reading(measured))
    if arguments.json:
        write_json(arguments.json, measured.to_json())
