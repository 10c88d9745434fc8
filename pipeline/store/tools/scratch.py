"""Scratch folders of stores: what killed or running writers left, and which of it may go.

A scratch folder is named by the first digits of its store's fingerprint (``teacher.cache_views``). Everything
else below the same root, such as finished seed runs, is nobody's business here.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import CacheError
from pipeline.core.files import is_held, lock_scratch
from pipeline.store.format.schema import StoreSchema
from pipeline.store.writer import writer

FOLDER_NAME = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class ScratchFolder:
    """One unfinished store.

    Attributes:
        path: The folder; its name is the beginning of the fingerprint's digest.
        schema: Of the store, or ``None`` if it was not begun or its attributes are damaged.
        finished: Number of finished partitions.
        bytes: Of all files.
        written: When a file was last written, seconds since the epoch; that of the folder if it is empty.
        held: Whether a run holds it now.
    """

    path: Path
    schema: StoreSchema | None
    finished: int
    bytes: int
    written: float
    held: bool


def list_scratch(root: Path) -> list[ScratchFolder]:
    """All scratch folders of stores below ``root``, the one written last first."""
    folders = [_describe(path) for path in root.iterdir() if _is_scratch(path)] if root.is_dir() else []
    return sorted(folders, key=lambda folder: -folder.written)


def clean_scratch(folders: list[ScratchFolder]) -> list[ScratchFolder]:
    """Remove folders that no run holds, each under its lock; returns those that are gone."""
    return [folder for folder in folders if _remove(folder.path)]


def _is_scratch(path: Path) -> bool:
    return FOLDER_NAME.fullmatch(path.name) is not None and path.is_dir() and not path.is_symlink()


def _describe(path: Path) -> ScratchFolder:
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    try:
        schema, finished = writer.read_schema(path), len(writer.finished_partitions(path))
    except CacheError:
        schema, finished = None, 0
    return ScratchFolder(
        path=path,
        schema=schema,
        finished=finished,
        bytes=sum(file.st_size for file in files),
        written=max((file.st_mtime for file in files), default=path.stat().st_mtime),
        held=is_held(path),
    )


def _remove(path: Path) -> bool:
    try:
        with lock_scratch(path):
            shutil.rmtree(path)
    except CacheError:
        return False
    return True
