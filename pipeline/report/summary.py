"""The page's sentences and headline numbers: each follows from what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.collect import Report
from pipeline.report.numbers import count, direction, duration, fold, percent, signed, significant, size
from pipeline.report.runs import Run, baseline_of, difference
from pipeline.report.statistics import dense_bytes

MIN_TEACHER_AP = 1.0
"""Percent: below it, a teacher has nothing to teach."""

TOO_SHORT = (
    "with a teacher this weak, AP says nothing about distillation: a run this short shows that it works"
)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    note: str
    tone: str
    """CSS class: a role, or ``store``."""


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """The teacher's time, once for the store or again for every student.

    Attributes:
        rate: Views a second of the stage that wrote the store.
        online: Teacher time, seconds, that one distilled student would spend, by name.
        epochs: Epochs of the first student after which the store has paid for itself.
        saved: Teacher time that the distilled students saved so far, seconds; negative before that.
    """

    rate: float
    online: dict[str, float]
    epochs: float
    saved: float


def measure_break_even(report: Report) -> BreakEven | None:
    """From measured times alone; ``None`` if no student was distilled or nothing took time."""
    distilled = [run for run in report.students if run.role == "distilled"]
    seconds, views = cache_seconds(report.cache_timing), int(report.cache_timing["views"])
    if not distilled or not seconds:
        return None
    rate = views / seconds
    online = {run.name: run.timing["epochs"] * run.timing["images"] / rate for run in distilled}
    return BreakEven(
        rate=rate,
        online=online,
        epochs=views / max(1, distilled[0].timing["images"]),
        saved=sum(online.values()) - seconds,
    )


def cache_seconds(timing: Mapping[str, Any]) -> float | None:
    """Time of writing the whole store; ``None`` if the run that finished it computed no view.

    A run that goes on after a kill records its own time and views: those before it took as long, one by one.
    """
    computed = timing.get("computed_views")
    return float(timing["seconds"]) * timing["views"] / computed if computed else None


def headline(report: Report) -> str:
    """AP of every detector in a line."""
    figures = [f"teacher {percent(report.teacher.metrics.get('AP'))}"]
    for run in report.students:
        gain = difference(run, baseline_of(run, report.students), "AP")
        figures.append(
            f"{run.name} {percent(run.metrics.get('AP'))}"
            + (f" ({signed(gain)})" if gain is not None else "")
        )
    return f"AP: {', '.join(figures)}" + ("; " + TOO_SHORT if trained_too_little(report) else "")


def trained_too_little(report: Report) -> bool:
    """The teacher detects next to nothing, so that nothing can be learned from it."""
    value = report.teacher.metrics.get("AP")
    return value is not None and value < MIN_TEACHER_AP


def claim(report: Report) -> str:
    """What one sees, in a sentence or two."""
    return _claim(report) + (f" But {TOO_SHORT}." if trained_too_little(report) else "")


def _claim(report: Report) -> str:
    distilled = report.pair.distilled
    if distilled is None:
        return "No student of this run was distilled: the store is there, and nobody has read it yet."
    baseline = baseline_of(distilled, report.students)
    gain = difference(distilled, baseline, "AP")
    reached = (
        "Trained from cached teacher outputs, "
        f"the student {quoted(distilled.name)} reaches {percent(distilled.metrics.get('AP'))} AP"
    )
    if baseline is None:
        return f"{reached}; no plain student of the same kind was trained."
    without = percent(baseline.metrics.get("AP"))
    same = f"the same {baseline.backbone} trained without distillation ({without})"
    if gain is None:
        return f"{reached}; it cannot be compared with {same}."
    match direction(gain):
        case "better":
            verdict = f"{signed(gain)} points over {same}"
        case "worse":
            verdict = f"in this run, {signed(gain)} points against {same}"
        case _:
            verdict = f"in this run, no more than {same}"
    return f"{reached}: {verdict}."


def quoted(name: str) -> str:
    """A name within a sentence."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"


def tiles(report: Report) -> list[Tile]:
    """The headline numbers: detectors first, then the store."""
    runs = [report.teacher, *report.pair.runs]
    return [*(_run_tile(run, report) for run in runs), *_store_tiles(report)]


def _run_tile(run: Run, report: Report) -> Tile:
    gain = difference(run, baseline_of(run, report.students), "AP")
    note = (
        run.backbone if gain is None else f"{signed(gain)} AP over {_name(baseline_of(run, report.students))}"
    )
    label = "teacher AP" if run.role == "teacher" else f"{run.name} AP"
    return Tile(label=label, value=percent(run.metrics.get("AP")), note=note, tone=run.role)


def _name(run: Run | None) -> str:
    return run.name if run else ""


def _store_tiles(report: Report) -> list[Tile]:
    totals = report.statistics.totals
    dense = dense_bytes_per_view(report)
    fidelity = report.fidelity
    return [
        Tile(
            label="store",
            value=size(totals["bytes"]),
            note=f"{count(totals['views'])} views of {count(len(report.train.images))} images",
            tone="store",
        ),
        Tile(
            label="bytes per view",
            value=size(totals["bytes_per_view"]),
            note=f"1/{dense / totals['bytes_per_view']:.0f} of {size(dense)} dense float32"
            if totals["bytes_per_view"]
            else "the store is empty",
            tone="store",
        ),
        Tile(
            label="fidelity of the store",
            value=f"{100 * fidelity['loss_error']:.2f}\N{NARROW NO-BREAK SPACE}%",
            note=f"error of the LD loss; mean KL {significant(fidelity['kl_mean'])} nats",
            tone="store",
        ),
    ]


def temperature(report: Report) -> float:
    """Temperature of LD: of the shown distilled student, or as all students have it."""
    shown = report.pair.distilled or report.students[0]
    assert shown.student is not None, "the teacher is no student"
    return shown.student.loss.ld_temperature


def dense_bytes_per_view(report: Report) -> float:
    """What one view would take with all logits at all positions, float32."""
    positions = report.statistics.view_positions
    if not len(positions):
        return 0.0
    return dense_bytes(int(positions.sum()), report.schema.bins, report.schema.num_classes) / len(positions)


def describe_break_even(report: Report) -> str:
    """What the store costs and saves, in words."""
    even = measure_break_even(report)
    if even is None:
        return "No student was distilled, or no view was computed: there is no teacher time to compare with."
    cost = duration(cache_seconds(report.cache_timing))
    whom = next(iter(even.online)) if len(even.online) == 1 else f"{len(even.online)} distilled students"
    online = f"{duration(sum(even.online.values()))} for {whom}"
    saved = (
        f"So far {duration(even.saved)} of teacher time is saved, and every further student saves its own."
        if even.saved > 0
        else "So far it has not been paid back; every further student brings it closer."
    )
    return (
        f"Writing the store took {cost}, once. With the teacher in the training loop, its forward passes "
        f"at the same rate would cost {online}: the store is paid for after "
        f"{significant(even.epochs, 3)} epochs of the first student. {saved}"
    )


def describe_training_times(report: Report) -> str:
    """Measured training times of the pair, if it differs in its loss alone."""
    run = report.pair.distilled
    baseline = baseline_of(run, report.students) if run else None
    if run is None or baseline is None or not baseline.timing["seconds"]:
        return ""
    mine, other = run.timing["seconds"], baseline.timing["seconds"]
    times = f"{run.name} trained in {duration(mine)}, {baseline.name} in {duration(other)}"
    return f"{times} ({fold(mine / other)})."
