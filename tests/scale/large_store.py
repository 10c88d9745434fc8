"""A store of very many views: written, finalised, verified, opened, read at random, and given to DVC.

    uv run python tests/scale/large_store.py --views 100000 --points 300

Given several numbers of views, it ends with a table of how time and memory grow with them. A few typical
views come again and again under other keys: what grows with their number (tables, records, files, memory) is
real, and ``--points`` sets the bytes of each.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from generated_store import begin, finish, write
from measured import Row, measure, render

from pipeline.core.tables import markdown_table
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify

VIEWS_PER_PARTITION = 512
"""As in the COCO recipes."""
VIEWS_READ = 10_000
DVC_COMMANDS = ("add targets.zarr", "commit --force targets.zarr.dvc", "status", "push", "status --cloud")


def check(store: Path) -> str:
    """Every checksum of every file."""
    return f"{len(verify(store))} problems"


def open_only(store: Path) -> str:
    """What a student does before its first batch."""
    return f"{len(TargetStore.open(store).keys):,} views"


def read_at_random(store: Path, views: int) -> str:
    """Decode views in random order."""
    opened = TargetStore.open(store)
    points = sum(len(opened.read(key).edge_codes) for key in Random(0).choices(opened.keys, k=views))
    return f"{views:,} views, {points:,} points"


def dvc(workspace: Path, command: str) -> None:
    """One command of DVC."""
    program = [sys.executable, "-m", "dvc", *command.split()]
    subprocess.run(program, cwd=workspace, check=True, capture_output=True)


def run(folder: Path, views: int, points: int) -> list[Row]:
    """All pieces of work, one after another."""
    workspace = folder / "workspace"
    store = workspace / "targets.zarr"
    workspace.mkdir()
    for command in ("init --no-scm", f"remote add -d there {folder / 'remote'}"):
        dvc(workspace, command)
    return [
        measure("plan", begin, folder, views, points, VIEWS_PER_PARTITION),
        measure("write", write, folder, points),
        measure("finalise", finish, folder, store),
        measure("verify", check, store),
        measure("open", open_only, store),
        measure("open and read at random", read_at_random, store, VIEWS_READ),
        *(measure(f"`dvc {command}`", dvc, workspace, command) for command in DVC_COMMANDS),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, nargs="+", default=[100_000], metavar="N")
    parser.add_argument("--points", type=int, default=300, help="mean kept points of a view; COCO has 2,200")
    arguments = parser.parse_args()
    columns = []
    for views in arguments.views:
        with tempfile.TemporaryDirectory(prefix="ldp-scale-") as folder:
            columns.append(run(Path(folder), views, arguments.points))
        print(f"{views:,} views\n\n{render(columns[-1])}")
    rows = [[sizes[0][0], *(f"{row[2]}, {row[3]}" for row in sizes)] for sizes in zip(*columns, strict=True)]
    print(markdown_table(["CPU seconds, peak MB", *(f"{views:,}" for views in arguments.views)], rows))


if __name__ == "__main__":
    main()
