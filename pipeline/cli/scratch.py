"""What runs that were killed have left, and which of it may go: ``ldp store scratch``."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.errors import CacheError
from pipeline.core.files import is_held, lock_scratch
from pipeline.core.progress import describe_bytes
from pipeline.store.writer import writer

STORE_NAME = re.compile("[0-9a-f]{16}")
"""An unfinished store's folder is named by the first digits of its fingerprint (``teacher.run``)."""

TEMPORARY = "ldp-*-*"
"""Folders of rehearsals and measurements in the system's folder for temporary files."""

IDLE_SECONDS = 24 * 3600.0
"""A temporary folder that nothing was written to for as long is of no running command."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A folder that takes space.

    Attributes:
        path: The folder.
        what: What it is, and how far it is.
        bytes: Size of all files.
        written: When a file was last written, seconds since the epoch; the folder, if it is empty.
        kept: Why it must stay; ``None`` if it can go.
    """

    path: Path
    what: str
    bytes: int
    written: float
    kept: str | None


def list_leftovers(scratch: Path, temporary: Path | None = None) -> list[Leftover]:
    """All that takes space outside of the runs' outputs, the largest first.

    Args:
        scratch: Where stages keep unfinished work.
        temporary: The system's folder for temporary files, if not its own default.
    """
    root = temporary or Path(tempfile.gettempdir())
    return sorted([*_in_scratch(scratch), *_temporary(root)], key=lambda leftover: -leftover.bytes)


def _in_scratch(scratch: Path) -> Iterator[Leftover]:
    for path in _folders(scratch):
        if STORE_NAME.fullmatch(path.name):
            yield _measure(path, _describe_store(path), _holder(path))
        elif path.name == "seeds":
            runs = len(list(path.glob("*.json")))
            yield _measure(path, f"{runs} finished runs of ldp seeds", "else they would be trained again")
    for path in _folders(scratch / "training"):
        yield _measure(path, f"unfinished training of {path.name.rpartition('-')[0]}", _holder(path))


def _temporary(root: Path) -> Iterator[Leftover]:
    for path in sorted(root.glob(TEMPORARY)):
        if path.is_dir() and not path.is_symlink():
            leftover = _measure(path, "a rehearsal or measurement", "it may be running")
            if time.time() - leftover.written > IDLE_SECONDS:
                leftover = replace(leftover, what=f"{leftover.what} that was killed", kept=None)
            yield leftover


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())


def _holder(path: Path) -> str | None:
    return "a run holds it" if is_held(path) else None


def _describe_store(path: Path) -> str:
    try:
        schema, done = writer.read_schema(path), len(writer.finished_partitions(path))
    except CacheError:
        return "an unfinished store: not begun, or damaged"
    return f"an unfinished store: {done} of {schema.partitions} partitions, {schema.views:,} views"


def _measure(path: Path, what: str, kept: str | None) -> Leftover:
    files = [file.lstat() for file in path.rglob("*") if file.is_file()]
    return Leftover(
        path=path,
        what=what,
        bytes=sum(file.st_size for file in files),
        written=max((file.st_mtime for file in files), default=path.stat().st_mtime),
        kept=kept,
    )


def clean(leftovers: Sequence[Leftover]) -> list[Leftover]:
    """Remove what can go, unfinished work under its lock; returns what is gone."""
    return [leftover for leftover in leftovers if leftover.kept is None and _remove(leftover.path)]


def _remove(path: Path) -> bool:
    try:
        with lock_scratch(path):
            shutil.rmtree(path)
    except CacheError:
        return False
    return True


def render(leftovers: Sequence[Leftover]) -> str:
    """A line for each: where, how large, what, how old, and whether it can go."""
    rows = [(str(leftover.path), describe_bytes(leftover.bytes), leftover) for leftover in leftovers]
    widths = [max(map(len, column), default=0) for column in zip(*((a, b) for a, b, _ in rows), strict=True)]
    return "".join(
        f"{path:{widths[0]}}  {size:>{widths[1]}}  {leftover.what}, {_age(leftover)}; "
        f"{'stays: ' + leftover.kept if leftover.kept else 'can go'}\n"
        for path, size, leftover in rows
    )


def _age(leftover: Leftover) -> str:
    hours = max(0.0, time.time() - leftover.written) / 3600
    return f"{hours / 24:.0f} days old" if hours >= 48 else f"{hours:.1f} hours old"
