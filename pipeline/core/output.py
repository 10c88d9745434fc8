"""Files that take the place of older ones whole, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import OutputError

PARTIAL_SUFFIX = ".partial"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``, whose place it takes when the block has ended well.

    What was there stays until then. Nor is it written into: where DVC has put it, it is a link to the one
    copy in DVC's cache.

    Raises:
        OutputError: In place of an ``OSError``, for that of a full disk names no file.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(
            f"{path} could not be written: expected a folder at {path.parent}, but a file is in its way; "
            "move it away, and run again"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}; make room there, "
            "or mend what is wrong, and run again"
        ) from error
    finally:
        _discard(partial)


def _discard(partial: Path) -> None:
    """Remove what is left of a file; there may be nothing, not even its folder."""
    if partial.is_file():
        partial.unlink()
