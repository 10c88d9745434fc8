"""The cost card: what a recipe takes of disk and time, and from how many students on the store pays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pipeline.core.progress import break_even, describe_bytes
from pipeline.core.tables import align, markdown_table

FORMULA = """\
the store      = views x (assign + teacher's forward pass + quantize and write), once
from the store = epochs x images x (read + student's step)
in the loop    = epochs x images x (assign + teacher's forward pass + student's step)
break-even     = the smallest number n of students with  the store + n x from the store < n x in the loop
Forward pass and step are measured on drawn images and scaled by the mean padded pixels of a view, reading and
writing by its points. Decoding is left out: a student decodes either way, in other processes. One device;
GPUs divide the hours."""

ASSIGN, TEACHER, WRITE = "assign points", "teacher", "quantize and write"
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was measured of a recipe, and its hours by :data:`FORMULA`."""

    images: int
    views: int
    points_per_view: float
    boxes_per_view: float
    bytes_per_view: float
    cache: Mapping[str, float]
    """Seconds of a view by step: :data:`ASSIGN`, :data:`TEACHER` and :data:`WRITE`."""
    read: float
    """Seconds of a view."""
    students: Mapping[str, tuple[int, float]]
    """Epochs, and the seconds of a step by its images, by name."""

    def student_hours(self, name: str) -> tuple[float, float]:
        """From the store, and with the teacher in the loop."""
        epochs, step = self.students[name]
        shown = epochs * self.images / SECONDS_PER_HOUR
        return shown * (self.read + step), shown * (self.cache[ASSIGN] + self.cache[TEACHER] + step)

    def break_even(self) -> int | None:
        """Students of the mean cost from which on the store pays; ``None`` if reading costs more."""
        hours = self.views * sum(self.cache.values()) / SECONDS_PER_HOUR
        saved = fmean(online - stored for stored, online in map(self.student_hours, self.students))
        return break_even(hours, saved)

    def render(self) -> str:
        """The card as text, with its formula."""
        count = self.break_even()
        per_view = f"{self.points_per_view:,.0f} kept points for {self.boxes_per_view:.1f} boxes each"
        store = f"{describe_bytes(self.bytes_per_view)} a view"
        rows: list[Sequence[str]] = [
            ("images", f"{self.images:,}", ""),
            ("views", f"{self.views:,}", per_view),
            ("store, at most about", describe_bytes(self.views * self.bytes_per_view), store),
            *(
                (name, _hours(self.views * seconds / SECONDS_PER_HOUR), f"{_time(seconds)} a view")
                for name, seconds in self.cache.items()
            ),
            ("break-even", "never" if count is None else str(count), "student" if count == 1 else "students"),
        ]
        students = [
            (name, str(epochs), _time(step), *map(_hours, self.student_hours(name)))
            for name, (epochs, step) in self.students.items()
        ]
        head = ("student", "epochs", "step, an image", "from the store", "in the loop")
        return f"{align(rows)}\n{markdown_table(head, students)}\n{FORMULA}\n"


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours < 10 else f"{hours:,.0f} h"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"
