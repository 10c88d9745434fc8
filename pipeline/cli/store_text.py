"""A store in plain text, for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.core.digest import canonical_json
from pipeline.core.progress import counted, describe_bytes
from pipeline.report import numbers
from pipeline.store.format.schema import StoreSchema
from pipeline.store.reader.verify import Problem
from pipeline.store.tools.scratch import ScratchFolder
from pipeline.store.tools.summary import StoreSummary

WIDTH = 100
"""Columns of a terminal that lines are wrapped to."""

NAME_WIDTH = 16
"""Columns of the names at the left."""

SHORT_HASH = 12
"""Digits that are shown of a sha256."""

SHA256_DIGITS = 64

MOST_LISTED = 10
"""Files or partitions that are named one by one."""

Rows = Iterable[tuple[str, str]]


def render_summary(summary: StoreSummary) -> str:
    """All facts about a store, laid out for reading."""
    parts = [
        summary.path,
        _rows(_content_rows(summary)),
        _size_table(summary),
        f"made from (fingerprint {summary.fingerprint_sha256[:16]})\n"
        + _rows(_flat_rows(summary.fingerprint)),
    ]
    if summary.provenance:
        parts.append("provenance\n" + _rows(_flat_rows(summary.provenance)))
    return "\n\n".join(parts) + "\n"


def render_problems(problems: Sequence[Problem]) -> str:
    """A line for every damaged file: which, of which partition, and what is wrong."""
    places = ["" if p.partition is None else f"partition {p.partition}" for p in problems]
    file_width = max((len(problem.file) for problem in problems), default=0)
    place_width = max(map(len, places), default=0)
    return "".join(
        f"{problem.file:{file_width}}  {place:{place_width}}  {problem.message}\n"
        for problem, place in zip(problems, places, strict=True)
    )


def describe_problems(problems: Sequence[Problem]) -> str:
    """How many files are damaged, and in which partitions."""
    partitions = sorted({problem.partition for problem in problems if problem.partition is not None})
    if not partitions:
        return f"{counted(len(problems), 'damaged file')}, no partition among them"
    noun = "partition" if len(partitions) == 1 else "partitions"
    return f"{counted(len(problems), 'damaged file')}, in {noun} {listed(partitions)}"


def render_scratch(folders: Sequence[ScratchFolder], now: float) -> str:
    """Scratch folders with two lines each: how far, how large and how old; and of which store."""
    return "".join(_scratch_lines(folder, now) for folder in folders)


def _scratch_lines(folder: ScratchFolder, now: float) -> str:
    schema = folder.schema
    done = f"{folder.finished} of {schema.partitions} partitions" if schema else "not begun, or damaged"
    age = f"written {duration(max(0.0, now - folder.written))} ago"
    held = "a run holds it" if folder.held else "no run holds it"
    head = f"{folder.path}  {done}, {describe_bytes(folder.bytes)}, {age}, {held}\n"
    return f"{head}  {_store_in_short(schema)}\n" if schema else head


def _store_in_short(schema: StoreSchema) -> str:
    """What tells one store from another, as far as it fits a line."""
    teacher = schema.fingerprint.get("teacher")
    weights = teacher.get("weights") if isinstance(teacher, Mapping) else None
    return f"{schema.views:,} views, {_settings(schema.precision.to_json())}, teacher {_value(weights)}"


def duration(seconds: float) -> str:
    """A time in its two largest units, without the page's no-break spaces."""
    return _plain(numbers.duration(seconds))


def listed(items: Sequence[object]) -> str:
    """The first items, and how many more there are."""
    shown = ", ".join(map(str, items[:MOST_LISTED]))
    more = len(items) - MOST_LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown


def _content_rows(summary: StoreSummary) -> Iterator[tuple[str, str]]:
    points, bytes_ = summary.points, summary.bytes
    images = "unknown (their table is damaged)" if summary.images is None else f"{summary.images:,}"
    yield "format version", str(summary.format_version)
    yield "views", f"{summary.views:,}"
    yield "images", images
    yield "boxes", f"{summary.boxes:,}"
    yield "partitions", f"{summary.partitions:,} of {counted(summary.views_per_partition, 'view')} at most"
    yield "kept points", f"{points.total:,}; {points.per_view:.1f} a view"
    yield "  main region", f"{points.main:,}; {points.main_per_view:.1f} a view"
    mean_weight = f"mean weight {points.mean_valuable_weight:.3f}"
    yield "  valuable", f"{points.valuable:,}; {points.valuable_per_view:.1f} a view; {mean_weight}"
    yield "bins", f"{summary.bins} an edge"
    yield "classes", f"{summary.num_classes}"
    yield "strides", f"{', '.join(map(str, summary.strides))} px"
    yield "precision", _settings(summary.precision)
    yield "formula", summary.quantizer
    shares = (f"{share:.4%} of the {kind.replace('_', ' ')} codes" for kind, share in summary.clipped.items())
    yield "clipped", ", ".join(shares)
    yield (
        "bytes",
        f"{describe_bytes(bytes_.total)}; {describe_bytes(bytes_.per_view)} a view, "
        f"{bytes_.per_point:.1f} B a kept point",
    )
    yield "files", _files(summary)


def _files(summary: StoreSummary) -> str:
    wrong = summary.wrong_sizes
    if not wrong:
        return "all there and of the recorded size; `ldp store verify` reads them"
    described = listed([f"{name} ({problem})" for name, problem in wrong.items()])
    return f"DAMAGED, {counted(len(wrong), 'file')}: {described}; see `ldp store verify`"


def _size_table(summary: StoreSummary) -> str:
    """Bytes by array: total, share, mean of a view."""
    whole, views = max(1, summary.bytes.total), max(1, summary.views)
    width = max(map(len, summary.bytes.arrays))
    lines = [f"  {'array':{width}}  {'bytes':>9}  {'share':>6}  {'a view':>9}"]
    for name, value in summary.bytes.arrays.items():
        mean = describe_bytes(value / views)
        lines.append(f"  {name:{width}}  {describe_bytes(value):>9}  {value / whole:6.1%}  {mean:>9}")
    return "\n".join(lines)


def _rows(rows: Rows) -> str:
    """Names at the left, wrapped text beside them."""
    return "\n".join(_row(name, text) for name, text in rows)


def _row(name: str, text: str) -> str:
    # A long name gets a line of its own.
    head = f"  {name:{NAME_WIDTH}}" if len(name) < NAME_WIDTH else f"  {name}\n{' ' * (NAME_WIDTH + 2)}"
    lines = textwrap.wrap(text, WIDTH - NAME_WIDTH - 2, break_long_words=False, break_on_hyphens=False) or [
        ""
    ]
    return head + f"\n{' ' * (NAME_WIDTH + 2)}".join(lines)


def _flat_rows(document: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """A row for every mapping, with all that it holds directly; nested mappings follow under dotted names."""
    plain = {name: value for name, value in document.items() if not isinstance(value, Mapping)}
    if path and plain:
        yield path, _settings(plain)
    elif not path:
        yield from ((name, _value(value)) for name, value in plain.items())
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _flat_rows(value, f"{path}.{name}" if path else name)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    """A value as JSON, a text as it is, a sha256 by its first digits."""
    if isinstance(value, str):
        hexadecimal = len(value) == SHA256_DIGITS and not set(value) - set("0123456789abcdef")
        return value[:SHORT_HASH] if hexadecimal else value
    return canonical_json(value).decode().replace(",", ", ")


def _plain(text: str) -> str:
    return text.replace(numbers.SPACE, " ").replace(numbers.THIN_SPACE, ",").replace(numbers.MINUS, "-")
