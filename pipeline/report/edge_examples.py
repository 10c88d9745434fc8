"""Edge distributions of single objects: the teacher's, and how near students come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeExample:
    """One object of a view, at the main-region point where the teacher is surest of its class.

    Edges are in the order left, top, right, bottom; bin ``i`` stands for a distance of ``i`` strides.
    """

    view: ShownView
    box: int
    """Index of the object in its view."""
    class_name: str
    score: float
    """The teacher's probability of the object's class."""
    level: str
    """Name of the point's level."""
    stride: float
    """Stride of that level, px."""
    box_xyxy: Array
    """(4,) the true box, px of the view."""
    point_xy: Array
    """(2,) px of the view."""
    target: Array
    """(4,) true distances, strides."""
    teacher: Array
    """(4, bins) probabilities."""
    students: Mapping[str, Array]
    """The same by name of the student."""
    entropy: Array
    """(4,) of the teacher's distributions, nats."""
    distances: Array
    """(4,) means of the teacher's distributions, strides."""

    @property
    def teacher_xyxy(self) -> Array:
        """(4,) the box that the means decode to, px of the view."""
        px = self.distances * self.stride
        return np.concatenate([self.point_xy - px[:2], self.point_xy + px[2:]])


def edge_examples(view: ShownView) -> list[EdgeExample]:
    """An example for every object with a main-region point."""
    labeled, logits = view.stored.view, view.stored.cls_logits()
    main = np.flatnonzero(labeled.points.main_region)
    main_gt = labeled.points.main_gt[main]
    examples = []
    for box in np.unique(main_gt).tolist():
        label = int(labeled.labels[box])
        scores = np.where(main_gt == box, logits[:, label], -np.inf)
        point = int(main[scores.argmax()])
        xyxy, xy = labeled.boxes_xyxy[box].astype(np.float64), view.points_xy[point].astype(np.float64)
        stride, teacher = float(view.point_strides[point]), view.teacher[point]
        examples.append(
            EdgeExample(
                view=view,
                box=box,
                class_name=view.class_names[label],
                score=float(1 / (1 + np.exp(-scores.max()))),
                level=f"P{int(labeled.points.level[point]) + 3}",
                stride=stride,
                box_xyxy=xyxy,
                point_xy=xy,
                target=np.concatenate([xy - xyxy[:2], xyxy[2:] - xy]) / stride,
                teacher=teacher,
                students={name: values[point] for name, values in view.students.items()},
                entropy=entropy_of(teacher),
                distances=teacher @ np.arange(teacher.shape[-1]),
            )
        )
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


def mean_kl(views: Sequence[ShownView], student: str) -> list[float | None]:
    """How near a student's edge distributions are to the teacher's at temperature 1: mean KL, nats.

    Returns:
        In the main region, and in the valuable region alone; ``None`` without such a point.
    """
    divergence = np.concatenate([kl(view.teacher, view.students[student]).mean(axis=1) for view in views])
    main = np.concatenate([view.stored.view.points.main_region for view in views])
    return [float(divergence[chosen].mean()) if chosen.any() else None for chosen in (main, ~main)]


def kl(teacher: Array, student: Array) -> Array:
    """``sum(q log(q / p))`` over the last axis, nats, of teacher ``q`` and student ``p``."""
    ratio = np.log(np.maximum(teacher, MIN_PROBABILITY)) - np.log(np.maximum(student, MIN_PROBABILITY))
    return np.asarray((teacher * ratio).sum(axis=-1))
