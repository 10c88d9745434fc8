"""``ldp store scratch``: what runs that were killed have left, and which of it may go."""

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.cli.options import argument, command
from pipeline.core.errors import CacheError
from pipeline.core.files import is_held, lock_scratch
from pipeline.core.paths import SCRATCH
from pipeline.core.progress import counted, describe_bytes
from pipeline.core.tables import align
from pipeline.store.writer import writer

STORE_NAME = re.compile("[0-9a-f]{16}")
"""An unfinished store's folder is named by the first digits of its fingerprint (``teacher.run``)."""
TEMPORARY = "ldp-*-*"
"""Folders of rehearsals and measurements in the system's folder for temporary files."""
IDLE_SECONDS = 24 * 3600.0
"""A temporary folder that nothing was written to for as long is of no running command."""


class Leftover(NamedTuple):
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
    leftovers = list_leftovers(SCRATCH, Path(tempfile.gettempdir()))
    sys.stdout.write(render(leftovers) or f"{SCRATCH}: nothing is left\n")
    if arguments.clean:
        gone = clean(leftovers)
        freed = describe_bytes(sum(leftover.bytes for leftover in gone))
        sys.stdout.write(f"removed {counted(len(gone), 'folder')}, freed {freed}\n")


def list_leftovers(scratch: Path, temporary: Path) -> list[Leftover]:
    """What takes space in the stages' ``scratch`` and in a folder of temporary files, the largest first."""
    leftovers = []
    for path in (*scratch.glob("*"), *scratch.glob("training/*"), *temporary.glob(TEMPORARY)):
        if path.is_symlink() or not path.is_dir():
            continue
        files = [file.lstat() for file in path.rglob("*") if file.is_file()]
        written = max((file.st_mtime for file in files), default=path.stat().st_mtime)
        kept = "a run holds it" if is_held(path) else None
        if path.parent == temporary:
            recent = time.time() - written <= IDLE_SECONDS
            what = f"a rehearsal or measurement{'' if recent else ' that was killed'}"
            kept = "it may be running" if recent else kept
        elif path.parent.name == "training":
            what = f"unfinished training of {path.name.rpartition('-')[0]}"
        elif STORE_NAME.fullmatch(path.name):
            what = _describe_store(path)
        elif path.name == "seeds":
            what = f"{counted(len(files), 'finished run')} of ldp seeds"
            kept = "else they would be trained again"
        else:
            continue
        leftovers.append(Leftover(path, what, sum(file.st_size for file in files), written, kept))
    return sorted(leftovers, key=lambda leftover: (-leftover.bytes, leftover.path))


def _describe_store(path: Path) -> str:
    try:
        schema, done = writer.read_schema(path), len(writer.finished_partitions(path))
    except CacheError:
        return "an unfinished store: not begun, or damaged"
    return f"an unfinished store: {done} of {schema.partitions} partitions, {schema.views:,} views"


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
    rows = []
    for path, what, size, written, kept in leftovers:
        hours = max(0.0, time.time() - written) / 3600
        age = f"{hours / 24:.0f} days old" if hours >= 48 else f"{hours:.1f} hours old"
        end = f"stays: {kept}" if kept else "can go"
        rows.append((str(path), describe_bytes(size), f"{what}, {age}; {end}"))
    return align(rows)
