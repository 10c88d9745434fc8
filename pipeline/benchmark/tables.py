"""What was measured, as Markdown tables."""

from collections.abc import Sequence

from pipeline.benchmark.caching import BARE, STAGE, CacheTimes
from pipeline.benchmark.distilling import DistillingTimes
from pipeline.benchmark.loading import LoadingRate
from pipeline.benchmark.reading import ReadingTimes
from pipeline.benchmark.rounds import Repeats


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


def render_distilling(measured: DistillingTimes) -> str:
    """Training steps, the cache stage, and after how many students it has paid for itself."""
    versions = ", ".join(f"{name} {value}" for name, value in measured.machine.items())
    teacher, student = measured.backbones
    long_edge, short_edge = measured.scale
    count = measured.break_even_students
    return (
        f"teacher {teacher}, student {measured.student} ({student}), views of up to {long_edge} x "
        f"{short_edge}; {measured.device}, {versions}\n\n"
        f"{_steps(measured)}\n{_caching(measured.cache, measured.teacher_batch)}\n"
        f"{_shares(measured.cache)}\n"
        f"{measured.views_per_image} views an image, {measured.epochs} epochs: the store has paid for itself "
        f"{'with no number of students' if count is None else f'from {count} on'}\n"
    )


def _steps(measured: DistillingTimes) -> str:
    rows = [
        [
            name,
            *(_milliseconds(part.median) for part in (times.targets, times.update, times.total)),
            _range(times.total),
            f"{measured.ratio(name):.3f}",
            _milliseconds(times.loaded.median),
            _range(times.loaded),
            "?" if times.peak_bytes is None else f"{times.peak_bytes / 1e6:,.0f}",
        ]
        for name, times in measured.steps.items()
    ]
    head = [f"step of {measured.batch_size} images, ms", "targets", "update", "both", "lowest - highest"]
    return _table([*head, "ratio", "with loading", "lowest - highest", "peak MB"], rows)


def _caching(cache: CacheTimes, batch: int) -> str:
    rows = [
        [
            name,
            f"{cache.views / repeats.median:,.2f}",
            f"{cache.views / repeats.highest:,.2f} - {cache.views / repeats.lowest:,.2f}",
            f"{cache.bare.median / repeats.median:.3f}",
        ]
        for name, repeats in ((BARE, cache.bare), (STAGE, cache.stage))
    ]
    return _table(
        [f"{cache.views} views in batches of {batch}", "views/s", "lowest - highest", "ratio"], rows
    )


def _shares(cache: CacheTimes) -> str:
    steps = ", ".join(f"{name} {share:.1%}" for name, share in cache.shares.items())
    return f"busy in the cache stage: {steps}; bottleneck: {cache.bottleneck}\n"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.2f}"


def _range(repeats: Repeats) -> str:
    return f"{_milliseconds(repeats.lowest)} - {_milliseconds(repeats.highest)}"


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
