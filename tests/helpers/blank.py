"""A report without pictures, which are most of what it costs; how it looks is tested with the report."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure

_save = Figure.savefig


def _save_nothing(figure: Figure, file: Any, **options: Any) -> None:
    """The formats that are embedded in a page are not drawn, all others are."""
    match options.get("format"):
        case "svg" | "webp":
            file.write(b"")
        case _:
            _save(figure, file, **options)


@contextmanager
def blank_pictures() -> Iterator[None]:
    with patch.object(Figure, "savefig", _save_nothing):
        yield
