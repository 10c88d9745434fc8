"""The cost card: what a recipe takes of disk and time, and from how many students on the store pays."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipeline.core.errors import DatasetError
from pipeline.core.progress import describe_bytes, show_progress
from pipeline.core.tables import align, markdown_table
from pipeline.core.timing import break_even, timed_call
from pipeline.cost.probe import STORED, Probe
from pipeline.detector.model import ModelSpec
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.run import layout_store

FORMULA = """\
the store      = views x (assign + teacher's forward pass + quantize and write), once
from the store = epochs x images x (read + student's step)
in the loop    = epochs x images x (assign + teacher's forward pass + student's step)
break-even     = the smallest number n of students with  the store + n x from the store < n x in the loop
Forward pass and step are measured on drawn images and scaled by the mean padded pixels of a view, reading and
writing by its points. Decoding is left out: a student decodes either way, in other processes. One device;
GPUs divide the hours."""

WAYS = "from_store", "in_the_loop"
SECONDS_PER_HOUR = 3600
SAMPLED_IMAGES = 500
"""Of all images, evenly spaced: the mean number of kept points is then known to some 4 %."""


@dataclass(frozen=True, kw_only=True)
class ViewStatistics:
    """Means over a sample of views, from the annotations alone, and how many views there are in all."""

    images: int
    views: int
    sampled_views: int
    points_per_view: float
    boxes_per_view: float
    pixels_per_view: float
    """Padding included."""
    store_bytes_per_view: float
    assign_seconds_per_view: float
    """Finding a view's points from its boxes."""


def gather_statistics(
    view_set: ViewSet,
    config: CacheConfig,
    spec: ModelSpec,
    images: int,
    views_per_image: int,
) -> ViewStatistics:
    """Lay out a store for the views of a sample of images, which stand for so many ``images``.

    ``views_per_image`` are the recipe's, of which ``view_set`` may have fewer.

    Raises:
        DatasetError: There is no image.
    """
    total = len(view_set.manifest.images)
    if not total:
        raise DatasetError(f"{view_set.manifest.root}: expected images with boxes, but there are none")
    rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLED_IMAGES)).astype(np.int64))
    manifest = replace(view_set.manifest, images=view_set.manifest.images.take(rows))
    layout, seconds = timed_call(
        layout_store,
        replace(view_set, manifest=manifest),
        config,
        spec,
        fingerprint={},
        progress=show_progress,
    )
    sampled = len(layout.table)
    points, _, boxes = layout.table.counts.mean(axis=0)
    return ViewStatistics(
        images=images,
        views=images * views_per_image,
        sampled_views=sampled,
        points_per_view=float(points),
        boxes_per_view=float(boxes),
        pixels_per_view=float(layout.table.geometry[:, 4:6].astype(float).prod(axis=1).mean()),
        store_bytes_per_view=estimate_bytes(layout.schema, layout.table) / sampled,
        assign_seconds_per_view=seconds / sampled,
    )


def make_card(
    statistics: ViewStatistics, probe: Probe, epochs: Mapping[str, int], free_bytes: int
) -> dict[str, Any]:
    """Put statistics and measurements together by :data:`FORMULA`; ``epochs`` are those of each student.

    Returns:
        Hours, bytes, and ``break_even_students``: ``None`` if a teacher in the loop costs less than reading.
    """
    cache, assign = probe.cache, statistics.assign_seconds_per_view
    pixels = statistics.pixels_per_view / cache.pixels_per_view
    points = statistics.points_per_view / max(1.0, cache.points_per_view)
    teacher, write, read = cache.bare.median * pixels, cache.write * points, cache.read * points
    students: list[dict[str, Any]] = []
    for name, count in epochs.items():
        step = probe.steps[name][STORED].step.median / probe.batch_sizes[name] * pixels
        shown = count * statistics.images / SECONDS_PER_HOUR
        hours = shown * (read + step), shown * (assign + teacher + step)
        named = {f"hours_{way}": each for way, each in zip(WAYS, hours, strict=True)}
        students.append({"name": name, "epochs": count, **named})
    per_view = statistics.views / SECONDS_PER_HOUR
    saved = sum(cost["hours_in_the_loop"] - cost["hours_from_store"] for cost in students) / len(students)
    return {
        "statistics": asdict(statistics),
        "probe": asdict(probe),
        "store_bytes": round(statistics.store_bytes_per_view * statistics.views),
        "free_bytes": free_bytes,
        "assign_hours": assign * per_view,
        "teacher_hours": teacher * per_view,
        "write_hours": write * per_view,
        "students": students,
        "break_even_students": break_even((assign + teacher + write) * per_view, saved),
        "formula": FORMULA,
    }


def render_card(recipe: str, source: str, machine: Mapping[str, str], card: Mapping[str, Any]) -> str:
    """The card as text, with its formula; the statistics come from the ``source``."""
    views, cache, sizes = card["statistics"], card["probe"]["cache"], card["probe"]["batch_sizes"]
    steps = dict.fromkeys(
        f"{_time(modes[STORED]['step']['median'] / sizes[name])} in batches of {sizes[name]}"
        for name, modes in card["probe"]["steps"].items()
    )
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    store, free = card["store_bytes"], card["free_bytes"]
    per_view = f"{describe_bytes(views['store_bytes_per_view'])} a view"
    count, boxes = card["break_even_students"], views["boxes_per_view"]
    amounts = [
        ("views", f"{views['views']:,}", f"{views['views'] // max(1, views['images'])} an image"),
        ("kept points", f"{views['points_per_view']:,.0f}", f"a view, for {boxes:.1f} boxes"),
        ("store, at most about", describe_bytes(store), per_view),
        ("free disk", describe_bytes(free), "enough" if store < free else "NOT ENOUGH"),
        ("assign points", _hours(card["assign_hours"]), "in one process"),
        ("teacher", _hours(card["teacher_hours"]), ""),
        ("quantize and write", _hours(card["write_hours"]), "beside the teacher"),
        ("break-even", "never" if count is None else str(count), "student" if count == 1 else "students"),
    ]
    students = [
        (cost["name"], str(cost["epochs"]), *(_hours(cost[f"hours_{way}"]) for way in WAYS))
        for cost in card["students"]
    ]
    return (
        f"{recipe}: {views['images']:,} images\n"
        f"statistics: {views['sampled_views']:,} views from {source}\n"
        f"probe:      random weights, {cache['views']} views of drawn images; {facts}\n"
        f"            teacher {_time(cache['bare']['median'])}, write {_time(cache['write'])}, "
        f"read {_time(cache['read'])} a view; a student's step {' or '.join(steps)} an image\n\n"
        f"{align(amounts)}\n"
        f"{markdown_table(['student', 'epochs', 'from the store', 'in the loop'], students)}\n{FORMULA}\n"
    )


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours < 10 else f"{hours:,.0f} h"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
