"""Edge distributions of single objects: what the teacher says of their edges, and how near students come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.report.shown_views import ShownView
from pipeline.report.statistics import entropy_of

EXAMPLES = 6
"""Objects that the page shows."""

MIN_SIDE_STRIDES = 2.0
"""An object on the page is at least this wide and high: of a smaller one there is little to see."""

MIN_PROBABILITY = 1e-300
"""No logarithm is taken of less."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeExample:
    """One object of a view, at the main-region point where the teacher is surest of its class.

    Edges are in the order left, top, right, bottom; bin ``i`` stands for a distance of ``i`` strides.
    """

    view: ShownView
    box: int
    """Index of the object in its view."""
    point: int
    """Index of the point among those of the view."""

    @property
    def class_name(self) -> str:
        """The object's class."""
        return self.view.class_names[int(self.view.stored.view.labels[self.box])]

    @property
    def box_xyxy(self) -> NDArray[np.float64]:
        """(4,) the true box, px of the view."""
        return np.asarray(self.view.stored.view.boxes_xyxy[self.box], np.float64)

    @property
    def point_xy(self) -> NDArray[np.float64]:
        """(2,) px of the view."""
        return np.asarray(self.view.points_xy[self.point], np.float64)

    @property
    def stride(self) -> float:
        """Stride of the point's level, px."""
        return float(self.view.point_strides[self.point])

    @property
    def level(self) -> str:
        """Name of the point's level."""
        return f"P{int(self.view.stored.view.points.level[self.point]) + 3}"

    @property
    def target(self) -> NDArray[np.float64]:
        """(4,) true distances, strides."""
        xy, box = self.point_xy, self.box_xyxy
        return np.concatenate([xy - box[:2], box[2:] - xy]) / self.stride

    @property
    def teacher(self) -> NDArray[np.float64]:
        """(4, bins) probabilities."""
        return np.asarray(self.view.teacher[self.point])

    @property
    def students(self) -> Mapping[str, NDArray[np.float64]]:
        """The same by name of the student."""
        return {name: probabilities[self.point] for name, probabilities in self.view.students.items()}

    @cached_property
    def entropy(self) -> NDArray[np.float64]:
        """(4,) of the teacher's distributions, nats."""
        return entropy_of(self.teacher)

    @property
    def distances(self) -> NDArray[np.float64]:
        """(4,) means of the teacher's distributions, strides."""
        return np.asarray(self.teacher @ np.arange(self.teacher.shape[-1]))

    @property
    def teacher_xyxy(self) -> NDArray[np.float64]:
        """(4,) the box that they decode to, px of the view."""
        xy, distances = self.point_xy, self.distances * self.stride
        return np.concatenate([xy - distances[:2], xy + distances[2:]])

    @property
    def score(self) -> float:
        """The teacher's probability of the object's class."""
        stored = self.view.stored
        row = np.count_nonzero(stored.view.points.main_region[: self.point])
        return float(1 / (1 + np.exp(-stored.cls_logits()[row, stored.view.labels[self.box]])))


def edge_examples(view: ShownView) -> list[EdgeExample]:
    """An example for every object with a main-region point."""
    main = np.flatnonzero(view.stored.view.points.main_region)
    main_gt, logits = view.stored.view.points.main_gt[main], view.stored.cls_logits()
    examples = []
    for box in np.unique(main_gt).tolist():
        scores = np.where(main_gt == box, logits[:, int(view.stored.view.labels[box])], -np.inf)
        examples.append(EdgeExample(view=view, box=box, point=int(main[scores.argmax()])))
    return examples


def is_clear(example: EdgeExample) -> bool:
    """Whether the object is large enough to be seen and within reach of the distributions."""
    sides = example.target[:2] + example.target[2:]
    last_bin = example.teacher.shape[-1] - 1
    return bool((sides >= MIN_SIDE_STRIDES).all() and (example.target <= last_bin).all())


def choose_examples(examples: Sequence[EdgeExample]) -> list[EdgeExample]:
    """Clear objects from sharp to ambiguous by the teacher's entropy, at most one of a view.

    The first is the sharpest one, a third are those of the largest contrast between their edges, and the
    rest are those of the highest entropy.
    """
    clear = [example for example in examples if is_clear(example)]
    orders = (
        sorted(clear, key=lambda example: float(example.entropy.mean())),
        sorted(clear, key=lambda example: float(-np.ptp(example.entropy))),
        sorted(clear, key=lambda example: float(-example.entropy.mean())),
    )
    chosen: list[EdgeExample] = []
    for order, end in zip(orders, (1, 1 + EXAMPLES // 3, EXAMPLES), strict=True):
        for example in order:
            if len(chosen) < end and all(example.view is not other.view for other in chosen):
                chosen.append(example)
    return sorted(chosen, key=lambda example: float(example.entropy.mean()))


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How near a student's edge distributions are to the teacher's: mean KL, nats, at temperature 1."""

    student: str
    main: float | None
    """In the main region; ``None`` if the sample has no such point."""
    valuable: float | None
    """In the valuable region alone."""


def measure_closeness(views: Sequence[ShownView], student: str) -> Closeness:
    """Mean KL of a student from the teacher over the points of views."""
    divergence = np.concatenate([kl(view.teacher, view.students[student]).mean(axis=1) for view in views])
    main = np.concatenate([view.stored.view.points.main_region for view in views])
    means = [float(divergence[chosen].mean()) if chosen.any() else None for chosen in (main, ~main)]
    return Closeness(student=student, main=means[0], valuable=means[1])


def kl(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sum(q log(q / p))`` over the last axis, nats, of teacher ``q`` and student ``p``."""
    ratio = np.log(np.maximum(teacher, MIN_PROBABILITY)) - np.log(np.maximum(student, MIN_PROBABILITY))
    return np.asarray((teacher * ratio).sum(axis=-1))
