"""The page's tables as rows of plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.collect import Report
from pipeline.report.numbers import MISSING, count, duration, mean, significant, size
from pipeline.report.runs import Role, Run, baseline_of, difference
from pipeline.report.statistics import FLOAT32_BYTES, dense_bytes, kept_bytes
from pipeline.report.summary import cache_seconds, temperature
from pipeline.views.summary import lines, summarize

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""Columns, in COCO's order."""

FLOAT16_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A metric, and its difference to the baseline."""

    value: float | None
    gain: float | None


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """One detector in the table of results."""

    name: str
    role: Role
    taught: str
    backbone: str
    parameters: int | None
    cells: Sequence[Cell]
    gain: float | None
    has_baseline: bool
    seconds: float | None


def result_rows(teacher: Run, students: Sequence[Run]) -> list[ResultRow]:
    """The teacher and every student."""
    return [_result_row(run, baseline_of(run, students)) for run in (teacher, *students)]


def _result_row(run: Run, baseline: Run | None) -> ResultRow:
    return ResultRow(
        name=run.name,
        role=run.role,
        taught=taught_by(run),
        backbone=run.backbone,
        parameters=run.parameters,
        cells=[
            Cell(value=run.metrics.get(metric), gain=difference(run, baseline, metric)) for metric in METRICS
        ],
        gain=difference(run, baseline, "AP"),
        has_baseline=baseline is not None,
        seconds=run.timing.get("seconds"),
    )


def taught_by(run: Run) -> str:
    """What a detector learned from, in a few words."""
    if run.student is None:
        return "ground truth; the source of the store"
    loss = run.student.loss
    terms = [
        f"{name} {weight:g}"
        for name, weight in (
            ("main LD", loss.ld_weight),
            ("VLR LD", loss.vlr_weight),
            ("class KD", loss.kd_weight),
        )
        if weight
    ]
    return " + ".join(["ground truth", *terms]) if terms else "ground truth alone"


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """AP of one category, by detector, and the pair's difference."""

    name: str
    values: Sequence[float | None]
    gain: float | None


def class_rows(report: Report) -> list[ClassRow]:
    """Every category, in the order of the dataset."""
    runs = [report.teacher, *report.students]
    return [
        ClassRow(
            name=category.name,
            values=[run.per_class.get(category.name) for run in runs],
            gain=_class_gain(report, category.name),
        )
        for category in report.val.categories
    ]


def _class_gain(report: Report, category: str) -> float | None:
    distilled = report.pair.distilled
    baseline = baseline_of(distilled, report.students) if distilled else None
    if distilled is None or baseline is None:
        return None
    mine, other = distilled.per_class.get(category), baseline.per_class.get(category)
    return None if mine is None or other is None else mine - other


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar of a comparison of sizes."""

    label: str
    value: str
    share: float
    """Of the largest bar, percent."""
    stored: bool


def size_bars(report: Report) -> list[Bar]:
    """Bytes a view, from saving everything to what the store takes."""
    statistics, schema = report.statistics, report.schema
    views = max(1, len(statistics.view_points))
    positions = int(statistics.view_positions.sum())
    points, main = int(statistics.view_points.sum()), int(statistics.view_main.sum())
    layout = (schema.bins, schema.num_classes)
    sizes = {
        "all positions, float32": dense_bytes(positions, *layout),
        "all positions, float16": dense_bytes(positions, *layout, FLOAT16_BYTES),
        "points LD reads, float32": kept_bytes(points, main, *layout, FLOAT32_BYTES),
        "points LD reads, float16": kept_bytes(points, main, *layout, FLOAT16_BYTES),
        "this store": int(statistics.totals["bytes"]),
    }
    largest = max(1, *sizes.values())
    return [
        Bar(label=label, value=size(value / views), share=100 * value / largest, stored=label == "this store")
        for label, value in sizes.items()
    ]


def part_bars(report: Report) -> list[Bar]:
    """Where the store's bytes are."""
    parts = report.statistics.bytes_by_part
    total = max(1, sum(parts.values()))
    names = {
        "points/edge_codes": "edge distributions",
        "points/region": "points and weights",
        "main/cls_codes": "class logits",
    }
    return [
        Bar(label=names.get(part, part), value=size(value), share=100 * value / total, stored=True)
        for part, value in sorted(parts.items(), key=lambda item: -item[1])
    ]


def store_facts(report: Report) -> list[tuple[str, str]]:
    """The store in numbers."""
    totals, timing = report.statistics.totals, report.cache_timing
    views, points = max(1, totals["views"]), max(1, totals["points"])
    both = totals["main_points"] + totals["valuable_points"] - totals["points"]
    seconds = cache_seconds(timing)
    return [
        ("views", count(totals["views"])),
        ("ground-truth boxes in them", count(totals["boxes"])),
        ("kept points per view", mean(totals["points"] / views)),
        ("of them main region", mean(totals["main_points"] / views)),
        ("of them valuable region", mean(totals["valuable_points"] / views)),
        ("of them in both", mean(both / views)),
        (
            "share of all positions kept",
            _share(totals["points"], int(report.statistics.view_positions.sum())),
        ),
        ("bytes per view", size(totals["bytes_per_view"])),
        ("bytes per point", f"{totals['bytes'] / points:.1f}"),
        ("bits per stored edge logit", _edge_bits(report)),
        ("rounding error of an edge logit, main region", _rounding(report, 1)),
        ("the same, valuable region alone", _rounding(report, 0)),
        ("edge codes clipped", f"{100 * totals['edge_clipped_fraction']:.2g} %"),
        ("class codes clipped", f"{100 * totals['cls_clipped_fraction']:.2g} %"),
        ("time to write, teacher included", f"{duration(seconds)} on {timing['device']}"),
        ("views per second", f"{timing['views'] / seconds:.1f}" if seconds else MISSING),
    ]


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2g} %" if whole else MISSING


def _rounding(report: Report, region: int) -> str:
    statistics = report.statistics
    return f"{statistics.edge_error[region]:.2g} (rms of {count(statistics.sampled)} views)"


def _edge_bits(report: Report) -> str:
    """Compressed bits of one edge logit, on average."""
    logits = report.statistics.totals["points"] * 4 * report.schema.bins
    return f"{8 * report.statistics.bytes_by_part['points/edge_codes'] / logits:.2f}" if logits else MISSING


def fidelity_rows(report: Report) -> list[tuple[str, str]]:
    """Store against live teacher."""
    fidelity, softened = report.fidelity, f"T = {temperature(report):g}"
    return [
        ("regions and weights", "equal" if fidelity["equal_regions"] else "differ"),
        (f"mean KL, {softened}", f"{significant(fidelity['kl_mean'])} nats"),
        (f"largest KL, {softened}", f"{significant(fidelity['kl_max'])} nats"),
        ("LD loss, relative error", _share(fidelity["loss_error"], 1)),
        ("its gradient, relative error", _share(fidelity["gradient_error"], 1)),
        ("its gradient, cosine", f"{fidelity['gradient_cosine']:.4f}"),
    ]


def level_rows(report: Report) -> list[tuple[str, int, int]]:
    """Level, main-region points, points of the valuable region alone."""
    points = report.statistics.points_by_level
    return [
        (f"P{level + 3}, stride {stride}", int(points[level, 1]), int(points[level, 0]))
        for level, stride in enumerate(report.schema.strides)
    ]


def provenance(report: Report) -> list[tuple[str, Mapping[str, str]]]:
    """What the numbers were made from, in groups."""
    made = report.schema.fingerprint
    return [
        (
            "Store",
            {
                "fingerprint": report.fingerprint,
                "format_version": str(report.format_version),
                "teacher weights, sha256": made["teacher"]["weights"],
                **{name: str(value) for name, value in report.schema.provenance.items()},
            },
        ),
        ("Regions and views", _regions_and_views(made)),
        (
            "Dataset",
            {
                "folder": report.train.root,
                "to train on": "; ".join(lines(summarize(report.train))),
                "to validate on": "; ".join(lines(summarize(report.val))),
                "boxes, sha256": report.train.boxes_sha256,
            },
        ),
        ("Students", {run.name: _training(run) for run in report.students}),
    ]


def _regions_and_views(made: Mapping[str, Any]) -> dict[str, str]:
    """What a store's fingerprint says about points, augmentations and precision."""
    regions, views, precision = made["regions"], made["views"], made["precision"]
    return {
        "overlap": regions["overlap"],
        "lower fraction": f"{regions['lower_fraction']:g}",
        "ATSS candidates per level": str(regions["atss_top_k"]),
        "anchor side": f"{regions['anchor_scale']} strides",
        **_views(views),
        "edge step": _step(precision["edge_step"]),
        "edge step, largest factor": f"{precision['edge_step_cap']:g}",
        "class step": _step(precision["cls_step"]),
    }


def _views(views: Mapping[str, Any]) -> dict[str, str]:
    """Enumerated, or drawn for every epoch."""
    times = "\N{MULTIPLICATION SIGN}"
    if "epochs" in views:
        least, most = views["short_edges"]
        return {
            "views": f"{views['epochs']}, one for each epoch",
            "scales": f"{views['long_edge']} {times} {least} to {most}",
            "flips": f"with probability {views['flip_probability']:g}",
        }
    return {
        "scales": ", ".join(f"{long} {times} {short}" for long, short in views["scales"]),
        "flips": ", ".join("flipped" if flip else "as it is" for flip in views["flips"]),
    }


def _step(step: float | None) -> str:
    return "lossless" if step is None else f"{step:g}"


def _training(run: Run) -> str:
    assert run.student is not None, "the teacher is no student"
    loss, train = run.student.loss, run.student.train
    temperatures = (
        f"; T = {loss.ld_temperature:g} (LD), {loss.kd_temperature:g} (KD)" if loss.reads_teacher else ""
    )
    return (
        f"{taught_by(run)}{temperatures}; {train.epochs} epochs of {train.optimizer}, "
        f"batch {train.batch_size}, rate {train.learning_rate:g} ({train.decay}), seed {train.seed}"
    )
