"""A store of very many views: written, finalised, verified, opened, read at random, and given to DVC.

    uv run python tests/scale/large_store.py --views 100000 --points 300

Given several numbers of views, it ends with a table of how time and memory grow with them.

Content is generated: a few typical views, again and again under other keys.
What grows with the number of views (tables, records, files, memory) is real; the bytes of a view are set by
``--points``.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from generated_store import begin, finish, write
from measured import Measured, measure, render, render_growth

from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify

VIEWS_PER_PARTITION = 512
"""As in the COCO recipes."""
VIEWS_READ = 10_000
DVC_COMMANDS = (
    ("add", "targets.zarr"),
    ("commit", "--force", "targets.zarr.dvc"),
    ("status",),
    ("push",),
    ("status", "--cloud"),
)


def check(store: Path) -> str:
    """Every checksum of every file."""
    return f"{len(verify(store))} problems"


def open_only(store: Path) -> str:
    """What a student does before its first batch."""
    return f"{len(TargetStore.open(store)):,} views"


def read_at_random(store: Path, views: int) -> str:
    """Decode views in random order."""
    opened = TargetStore.open(store)
    chosen = Random(0).choices(opened.keys, k=views)
    points = sum(len(opened.read(key).edge_codes) for key in chosen)
    return f"{views:,} views, {points:,} points"


def share(workspace: Path, *command: str) -> str:
    """One command of git or DVC."""
    program = [sys.executable, "-m", *command] if command[0] == "dvc" else command
    subprocess.run(program, cwd=workspace, check=True, capture_output=True)
    return ""


def run(folder: Path, views: int, points: int) -> list[Measured]:
    """All pieces of work, one after another."""
    workspace = folder / "workspace"
    store = workspace / "targets.zarr"
    workspace.mkdir()
    for command in (
        ("git", "init"),
        ("dvc", "init"),
        ("dvc", "remote", "add", "-d", "there", str(folder / "remote")),
    ):
        share(workspace, *command)
    return [
        measure("plan", begin, folder, views, points, VIEWS_PER_PARTITION),
        measure("write", write, folder, points),
        measure("finalise", finish, folder, store),
        measure("verify", check, store),
        measure("open", open_only, store),
        measure("open and read at random", read_at_random, store, VIEWS_READ),
        *(
            measure(f"`dvc {' '.join(command)}`", share, workspace, "dvc", *command)
            for command in DVC_COMMANDS
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, nargs="+", default=[100_000], metavar="N")
    parser.add_argument("--points", type=int, default=300, help="mean kept points of a view; COCO has 2,200")
    arguments = parser.parse_args()
    columns = {views: _run_in_a_folder(views, arguments.points) for views in arguments.views}
    for views, rows in columns.items():
        sys.stdout.write(f"{views:,} views\n\n{render(rows)}\n")
    if len(columns) > 1:
        sys.stdout.write(render_growth(columns))


def _run_in_a_folder(views: int, points: int) -> list[Measured]:
    """All pieces of work, and nothing left of them."""
    folder = Path(tempfile.mkdtemp(prefix="ldp-scale-"))
    try:
        return run(folder, views, points)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
