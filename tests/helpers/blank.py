"""A report without pictures, which are most of what it costs; how it looks is tested with the report."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure


@contextmanager
def blank_pictures() -> Iterator[None]:
    """The formats that are embedded in a page are not drawn, all others are."""
    save = Figure.savefig

    def save_nothing(figure: Figure, file: Any, **options: Any) -> None:
        if options.get("format") in ("svg", "webp"):
            file.write(b"")
        else:
            save(figure, file, **options)

    with patch.object(Figure, "savefig", save_nothing):
        yield
