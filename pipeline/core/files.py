"""Files that survive a kill: written whole or not at all, hashed, moved by rename, locked."""

import csv
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import CacheError, OutputError

LOCK_FILE, PARTIAL_SUFFIX = "lock", ".partial"


def canonical_json(document: Any) -> bytes:
    """The one byte string of a JSON document: sorted keys, no spaces, no NaN."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(document: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """Size in bytes and sha256 (hex) of a file."""

    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, content: bytes) -> "FileDigest":
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> "FileDigest":
        return cls(size=path.stat().st_size, sha256=sha256_of_file(path))

    def size_problem(self, path: Path) -> str | None:
        """What is wrong with the file at ``path`` without reading it, or ``None``."""
        if not path.is_file():
            return "the file is missing"
        size = path.stat().st_size
        return None if size == self.size else f"expected {self.size} bytes, but got {size}"

    def problem(self, path: Path) -> str | None:
        """What is wrong with the file at ``path``, read whole, or ``None``."""
        if problem := self.size_problem(path):
            return problem
        same = sha256_of_file(path) == self.sha256
        return None if same else f"the content differs from its sha256 {self.sha256[:12]}"


@contextmanager
def atomic_path(path: Path, inside: Path | None = None) -> Iterator[Path]:
    """A path to write to, beside ``path``, whose place it takes when the block has ended well.

    A kill or a power cut leaves the old file, the new one, or none. The old one, which may be a link into
    DVC's cache, is not written into. Missing folders are made, but never ``inside``: a ``CacheError``. An
    ``OSError`` becomes an ``OutputError``.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL_SUFFIX}")
    try:
        with os_errors_as_output_error(path):
            make_folder(path.parent, inside)
            yield partial
            _fsync(partial)
            partial.replace(path)
            _fsync(path.parent)
    finally:
        if partial.is_file():  # on a full disk it would be in the way of everything else
            partial.unlink()


def write_atomically(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Write a file by way of :func:`atomic_path`."""
    with atomic_path(path, inside) as partial:
        partial.write_bytes(content)


def make_folder(folder: Path, inside: Path | None = None) -> None:
    """Make a folder and its parents, durably; ``CacheError`` if ``inside`` is gone, which is never made."""
    if not folder.is_dir():
        if folder == inside:
            raise CacheError(f"{folder} is gone: another run has finished with it, or it was removed")
        make_folder(folder.parent, inside)
        folder.mkdir(exist_ok=True)
        _fsync(folder.parent)


def require_writable(folder: Path) -> None:
    """Refuse beforehand what can only fail at its end; an ``OutputError`` names what is read-only."""
    here = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(here, os.W_OK):
        raise OutputError(f"{folder}: expected a folder to write to, but {here} is read-only")


@contextmanager
def os_errors_as_output_error(path: Path) -> Iterator[None]:
    """Raise an ``OutputError`` in place of an ``OSError``: Python's message of a full disk names no file."""
    try:
        yield
    except OSError as error:
        in_the_way = next((part for part in path.parents if part.is_file()), None)
        reason = f"{in_the_way} is no folder" if in_the_way else error.strerror or str(error)
        raise OutputError(
            f"{path} could not be written: {reason}; make room there, or remove the cause, and run "
            "again: what is finished is kept"
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Force every file and folder below ``folder``, and itself, to the disk."""
    for path in (*folder.rglob("*"), folder):
        _fsync(path)


def remove_others(folder: Path, known: Container[str]) -> None:
    """Delete all files below ``folder`` but the known ones: what killed writers left."""
    for path in list(folder.rglob("*")):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in known:
            path.unlink(missing_ok=True)
            _fsync(path.parent)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def move_into_place(folder: Path, target: Path) -> None:
    """Replace ``target`` by ``folder`` with one rename, after a copy from another file system."""
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    with os_errors_as_output_error(target):
        make_folder(target.parent)
        remove(target)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            remove(partial)
            shutil.copytree(folder, partial)
            fsync_tree(partial)
            partial.rename(target)
        finally:
            remove(partial)
        _fsync(target.parent)


@contextmanager
def lock_scratch(scratch: Path) -> Iterator[None]:
    """Hold ``scratch`` until this process ends, however it dies; a ``CacheError`` if another run holds it."""
    make_folder(scratch)
    path = scratch / LOCK_FILE
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another run is writing to {scratch}; wait for it to end, or stop it, then run again"
            raise CacheError(message) from None
        # The run that held the lock may have finished, and removed the folder, since `path` was opened.
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(file.fileno())):
            raise CacheError(f"another run has just finished with {scratch}; run again")
        yield


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table for DVC's plots and for spreadsheets."""
    with atomic_path(path) as partial, partial.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def write_json(path: Path, content: dict[str, Any], *, sort_keys: bool = False) -> None:
    """Write metrics or a description."""
    write_atomically(path, (json.dumps(content, indent=2, sort_keys=sort_keys) + "\n").encode())
