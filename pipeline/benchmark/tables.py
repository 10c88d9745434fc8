"""What was measured, as Markdown tables."""

from collections.abc import Sequence

from pipeline.benchmark.loading import LoadingRate
from pipeline.benchmark.reading import ReadingTimes


def render_reading(measured: ReadingTimes) -> str:
    """Times of all readers, and the rates of a data loader if there are any."""
    versions = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    head = (
        f"{measured.store or 'a generated store'}: {measured.views} views in random order, "
        f"{measured.points_per_view:.0f} points a view; {versions}\n\n"
    )
    if not measured.loading:
        return head + _times(measured)
    return head + _times(measured) + "\n" + _rates(measured.loading, measured.workers)


def _times(measured: ReadingTimes) -> str:
    own = next(iter(measured.times.values())).median
    rows = [
        [
            name,
            *(f"{value:.3f}" for value in (spread.median, spread.p90)),
            f"{spread.lowest:.3f} - {spread.highest:.3f}",
            f"{spread.undisturbed:.3f}",
            f"{spread.median / own:.2f}",
            f"{measured.bytes_per_view[name] / 1e3:.1f}",
        ]
        for name, spread in measured.times.items()
    ]
    head = ["reader", "CPU ms a view, median", "p90", "medians of the repeats", "undisturbed", "ratio"]
    return _table([*head, "KB a view"], rows)


def _rates(loading: Sequence[LoadingRate], workers: int) -> str:
    rows = [
        [
            rate.reader,
            rate.start_method,
            f"{rate.views_per_second:,.0f}",
            f"{rate.milliseconds_per_view:.2f}",
            f"{rate.start_seconds:.1f}",
        ]
        for rate in loading
    ]
    head = [f"{workers} loader workers", "started by", "views/s", "their CPU ms a view", "start-up s"]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(_line(cells, widths) for cells in (head, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |\n"
