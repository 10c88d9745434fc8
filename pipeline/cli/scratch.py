"""``ldp store scratch``: what runs that were killed have left, and which of it may go."""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cli.options import argument, command
from pipeline.core.errors import CacheError
from pipeline.core.files import is_held, lock_scratch
from pipeline.core.paths import SCRATCH
from pipeline.core.progress import counted, describe_bytes
from pipeline.store.writer import writer

STORE_NAME = re.compile("[0-9a-f]{16}")
"""An unfinished store's folder is named by the first digits of its fingerprint (``teacher.run``)."""

TEMPORARY = "ldp-*-*"
"""Folders of rehearsals and measurements in the system's folder for temporary files."""

IDLE_SECONDS = 24 * 3600.0
"""A temporary folder that nothing was written to for as long is of no running command."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A folder that takes space."""

    path: Path
    what: str
    """What it is, and how far it is."""
    bytes: int
    written: float
    """When a file was last written, seconds since the epoch; the folder, if it is empty."""
    kept: str | None
    """Why it must stay; ``None`` if it can go."""


@command(argument("--clean", action="store_true", help="remove what can go"))
def scratch_command(arguments: argparse.Namespace) -> None:
    """Lists all that takes space outside of runs/, how large and how old it is, and whether it can go.

    That is: unfinished stores and trainings, with which ``dvc repro`` goes on if its parameters fit; finished
    runs of ``ldp seeds``; rehearsals and measurements that were killed.
    """
    leftovers = list_leftovers(SCRATCH)
    sys.stdout.write(render(leftovers) or f"{SCRATCH}: nothing is left\n")
    if arguments.clean:
        gone = clean(leftovers)
        freed = describe_bytes(sum(leftover.bytes for leftover in gone))
        sys.stdout.write(f"removed {counted(len(gone), 'folder')}, freed {freed}\n")


def list_leftovers(scratch: Path, temporary: Path | None = None) -> list[Leftover]:
    """All that takes space outside of the runs' outputs, the largest first.

    Args:
        scratch: Where stages keep unfinished work.
        temporary: The system's folder for temporary files, if not its own default.
    """
    leftovers = []
    for path in _folders(scratch, "*"):
        if STORE_NAME.fullmatch(path.name):
            leftovers.append(_measure(path, _describe_store(path)))
        elif path.name == "seeds":
            runs = len(list(path.glob("*.json")))
            leftovers.append(
                _measure(path, f"{runs} finished runs of ldp seeds", "else they would be trained again")
            )
    for path in _folders(scratch / "training", "*"):
        leftovers.append(_measure(path, f"unfinished training of {path.name.rpartition('-')[0]}"))
    for path in _folders(temporary or Path(tempfile.gettempdir()), TEMPORARY):
        leftover = _measure(path, "a rehearsal or measurement", "it may be running")
        if time.time() - leftover.written > IDLE_SECONDS:
            leftover = replace(leftover, what=f"{leftover.what} that was killed", kept=None)
        leftovers.append(leftover)
    return sorted(leftovers, key=lambda leftover: -leftover.bytes)


def _folders(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.is_dir() and not path.is_symlink())


def _describe_store(path: Path) -> str:
    try:
        schema, done = writer.read_schema(path), len(writer.finished_partitions(path))
    except CacheError:
        return "an unfinished store: not begun, or damaged"
    return f"an unfinished store: {done} of {schema.partitions} partitions, {schema.views:,} views"


def _measure(path: Path, what: str, kept: str | None = None) -> Leftover:
    files = [file.lstat() for file in path.rglob("*") if file.is_file()]
    return Leftover(
        path=path,
        what=what,
        bytes=sum(file.st_size for file in files),
        written=max((file.st_mtime for file in files), default=path.stat().st_mtime),
        kept=kept or ("a run holds it" if is_held(path) else None),
    )


def clean(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove what can go, unfinished work under its lock; returns what is gone."""
    gone = []
    for leftover in leftovers:
        # A run may have taken it since it was listed.
        with suppress(CacheError):
            if leftover.kept is None:
                with lock_scratch(leftover.path):
                    shutil.rmtree(leftover.path)
                gone.append(leftover)
    return gone


def render(leftovers: Sequence[Leftover]) -> str:
    """A line for each: where, how large, what, how old, and whether it can go."""
    sizes = [describe_bytes(leftover.bytes) for leftover in leftovers]
    path_width = max((len(str(leftover.path)) for leftover in leftovers), default=0)
    size_width = max(map(len, sizes), default=0)
    lines = []
    for leftover, size in zip(leftovers, sizes, strict=True):
        hours = max(0.0, time.time() - leftover.written) / 3600
        age = f"{hours / 24:.0f} days old" if hours >= 48 else f"{hours:.1f} hours old"
        end = f"stays: {leftover.kept}" if leftover.kept else "can go"
        start = f"{leftover.path!s:{path_width}}  {size:>{size_width}}"
        lines.append(f"{start}  {leftover.what}, {age}; {end}\n")
    return "".join(lines)
