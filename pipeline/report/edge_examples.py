"""Edge distributions of single objects: the teacher's, and how near students come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import kl_div

from pipeline.report.shown_views import ShownView

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

    @cached_property
    def entropy(self) -> Array:
        """(4,) of the teacher's distributions, nats."""
        return np.asarray(torch.special.entr(torch.from_numpy(self.teacher)).sum(dim=-1), np.float64)

    @property
    def distances(self) -> Array:
        """(4,) means of the teacher's distributions, strides."""
        return np.asarray(self.teacher @ np.arange(self.teacher.shape[-1]))

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
        stride = float(view.point_strides[point])
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
                teacher=view.teacher[point],
                students={name: values[point] for name, values in view.students.items()},
            )
        )
    return examples


def choose_examples(examples: Sequence[EdgeExample]) -> list[EdgeExample]:
    """Clear objects from sharp to ambiguous by the teacher's entropy, at most one of a view.

    An object is clear if it is large enough to be seen, and within reach of the distributions. The first is
    the sharpest one, a third are those of the largest contrast between their edges, and the rest are those
    of the highest entropy.
    """
    clear = [
        example
        for example in examples
        if (example.target[:2] + example.target[2:] >= MIN_SIDE_STRIDES).all()
        and (example.target <= example.teacher.shape[-1] - 1).all()
    ]
    sharpness = sorted(clear, key=lambda example: float(example.entropy.mean()))
    contrast = sorted(clear, key=lambda example: -float(np.ptp(example.entropy)))
    chosen: list[EdgeExample] = []
    for order, end in ((sharpness, 1), (contrast, 1 + EXAMPLES // 3), (sharpness[::-1], EXAMPLES)):
        for example in order:
            if len(chosen) < end and all(example.view is not other.view for other in chosen):
                chosen.append(example)
    return sorted(chosen, key=lambda example: float(example.entropy.mean()))


def mean_kl(views: Sequence[ShownView], student: str) -> list[float | None]:
    """Mean KL of a student's edge distributions from the teacher's at temperature 1, nats.

    In the main region, and in the valuable region alone; ``None`` without such a point.
    """
    divergence = np.concatenate([kl(view.teacher, view.students[student]).mean(axis=1) for view in views])
    main = np.concatenate([view.stored.view.points.main_region for view in views])
    return [float(divergence[chosen].mean()) if chosen.any() else None for chosen in (main, ~main)]


def kl(teacher: Array, student: Array) -> Array:
    """``sum(q log(q / p))`` over the last axis, nats, of teacher ``q`` and student ``p``."""
    p, q = torch.from_numpy(student), torch.from_numpy(teacher)
    divergence = kl_div(p.clamp(min=MIN_PROBABILITY).log(), q, reduction="none")
    return np.asarray(divergence.sum(dim=-1), np.float64)


def true_class_first(views: Sequence[ShownView]) -> float | None:
    """Share of the main-region points at which the teacher's first class is that of their object."""
    firsts = [np.empty(0, np.bool_)]
    for view in views:
        labeled = view.stored.view
        labels = labeled.labels[labeled.points.main_gt[labeled.points.main_region]]
        firsts.append(view.stored.cls_logits().argmax(axis=1) == labels)
    first = np.concatenate(firsts)
    return float(first.mean()) if len(first) else None
