"""The cost card: what a recipe takes of disk and time, and from how many students on the store pays."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import floor
from typing import Any

from pipeline.cost.probe import Probe
from pipeline.cost.views import ViewStatistics
from pipeline.student.config import StudentConfig

FORMULA = """\
the store      = views x (plan + teacher's forward pass + quantize and write), once
from the store = epochs x images x (read + student's step)
in the loop    = epochs x images x (plan + teacher's forward pass + student's step)
break-even     = the smallest number n of students with  the store + n x from the store < n x in the loop
The forward pass and the step are measured on one typical view and scaled by the mean padded pixels of a view.
Decoding is left out: a student decodes either way, in other processes. One device; GPUs divide the hours."""

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class StudentCost:
    """One student's training."""

    name: str
    epochs: int
    hours_from_store: float
    hours_in_the_loop: float


@dataclass(frozen=True, kw_only=True)
class CostCard:
    """What a recipe costs on one device."""

    recipe: str
    source: str
    """Where the statistics come from."""
    images: int
    views: int
    sampled_views: int
    points_per_view: float
    boxes_per_view: float
    store_bytes_per_view: float
    store_bytes: int
    free_bytes: int
    probe: Probe
    plan_hours: float
    teacher_hours: float
    write_hours: float
    students: tuple[StudentCost, ...]
    break_even_students: int | None
    """None if a teacher in the loop costs less than reading does."""

    @property
    def store_hours(self) -> float:
        """What is paid once."""
        return self.plan_hours + self.teacher_hours + self.write_hours

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "store_hours": self.store_hours, "formula": FORMULA}


def make_card(
    recipe: str,
    source: str,
    statistics: ViewStatistics,
    probe: Probe,
    students: Mapping[str, StudentConfig],
    free_bytes: int,
) -> CostCard:
    """Put statistics and measurements together by :data:`FORMULA`."""
    scale = statistics.pixels_per_view / probe.pixels
    teacher, plan = probe.teacher_seconds * scale, statistics.plan_seconds_per_view
    costs = tuple(
        _student_cost(
            name,
            student.train.epochs,
            statistics.images,
            step=probe.student_seconds[name] * scale,
            read=probe.read_seconds,
            online=plan + teacher,
        )
        for name, student in students.items()
    )
    per_view = statistics.views / SECONDS_PER_HOUR
    once = (plan + teacher + probe.write_seconds) * per_view
    return CostCard(
        recipe=recipe,
        source=source,
        images=statistics.images,
        views=statistics.views,
        sampled_views=statistics.sampled_views,
        points_per_view=statistics.points_per_view,
        boxes_per_view=statistics.boxes_per_view,
        store_bytes_per_view=statistics.store_bytes_per_view,
        store_bytes=round(statistics.store_bytes_per_view * statistics.views),
        free_bytes=free_bytes,
        probe=probe,
        plan_hours=plan * per_view,
        teacher_hours=teacher * per_view,
        write_hours=probe.write_seconds * per_view,
        students=costs,
        break_even_students=break_even(once, costs),
    )


def _student_cost(
    name: str, epochs: int, images: int, *, step: float, read: float, online: float
) -> StudentCost:
    """Hours from the seconds of one image: a student's step, reading it, and what reading replaces."""
    seen = epochs * images / SECONDS_PER_HOUR
    return StudentCost(
        name=name,
        epochs=epochs,
        hours_from_store=seen * (read + step),
        hours_in_the_loop=seen * (online + step),
    )


def break_even(store_hours: float, students: tuple[StudentCost, ...]) -> int | None:
    """Students of the recipe's mean cost from which on the store costs less; None if it never does."""
    saved = sum(cost.hours_in_the_loop - cost.hours_from_store for cost in students) / len(students)
    return floor(store_hours / saved) + 1 if saved > 0 else None


def render_card(card: CostCard) -> str:
    """The card as text, with its formula."""
    sections = (_render_origin(card), _render_store(card), _render_students(card), [FORMULA])
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _render_origin(card: CostCard) -> list[str]:
    probe = card.probe
    height, width = probe.probed_hw
    steps = sorted(set(probe.student_seconds.values()))
    return [
        f"{card.recipe}: {card.images:,} images",
        f"statistics: {card.sampled_views:,} views from {card.source}",
        f"probe:      {probe.device}, {probe.threads} threads, random weights, {width} x {height} px",
        f"            teacher {_time(probe.teacher_seconds)} a view in batches of {probe.teacher_batch}",
        f"            write {_time(probe.write_seconds)}, read {_time(probe.read_seconds)} a view",
        f"            student's step {' or '.join(map(_time, steps))} an image in batches of "
        f"{probe.student_batch}",
    ]


def _render_store(card: CostCard) -> list[str]:
    kilobytes = card.store_bytes_per_view / 1e3
    enough = "enough" if card.store_bytes < card.free_bytes else "NOT ENOUGH"
    return [
        _row("views", f"{card.views:,}", f"{card.views // max(1, card.images)} an image"),
        _row("kept points", f"{card.points_per_view:,.0f}", f"a view, for {card.boxes_per_view:.1f} boxes"),
        _row("store, at most about", _gigabytes(card.store_bytes), f"{kilobytes:.0f} KB a view"),
        _row("free disk", _gigabytes(card.free_bytes), enough),
        _row("plan", _hours(card.plan_hours), "in one process"),
        _row("teacher", _hours(card.teacher_hours), ""),
        _row("quantize and write", _hours(card.write_hours), "beside the teacher"),
    ]


def _render_students(card: CostCard) -> list[str]:
    rows = [("student", "epochs", "from the store", "in the loop")]
    for cost in card.students:
        hours = _hours(cost.hours_from_store), _hours(cost.hours_in_the_loop)
        rows.append((cost.name, str(cost.epochs), *hours))
    count = card.break_even_students
    table = [f"{name:22}{epochs:>14}{store:>18}{loop:>18}" for name, epochs, store, loop in rows]
    return [
        *table,
        _row("break-even", "never" if count is None else str(count), "student" if count == 1 else "students"),
    ]


def _row(name: str, value: str, note: str) -> str:
    return f"{name:22}{value:>14}   {note}".rstrip()


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours < 10 else f"{hours:,.0f} h"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
