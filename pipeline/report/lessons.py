"""What the student is taught: edge distributions of teacher and students at stored points.

The teacher speaks from the store alone; the students are run on the very views that the store holds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.detector.gfl import GFL
from pipeline.report.statistics import entropy_of, softmax, spread_keys
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.box_ops import encode_distances
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.types import ViewKey

SAMPLED_VIEWS = 48
"""Stored views on which the students are run."""

LESSONS = 6
"""Objects that are shown."""

MIN_SIDE_STRIDES = 2.0
"""A shown object is at least this many strides wide and high: of a smaller one there is little to see."""

SMALLEST = 1e-300
"""Probability below which no logarithm is taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledView:
    """One stored view with all that is known of it.

    Attributes:
        stored: As the store has it.
        pixels: ``ByteTensor[3, H, W]`` of the view, not padded.
        points_xy: (P, 2) px.
        strides: (P,) px.
        teacher: (P, 4, bins) probabilities at temperature 1.
        students: The same by name of the student.
    """

    stored: StoredView
    pixels: Tensor
    points_xy: NDArray[np.float32]
    strides: NDArray[np.float32]
    teacher: NDArray[np.float64]
    students: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """One object, at the main-region point where the teacher is surest of its class.

    Attributes:
        key: View.
        box_xyxy: (4,) px of the view.
        label: Its class.
        point_xy: (2,) px of the view.
        stride: Of the point's level, px.
        target: (4,) true distances l, t, r, b in strides.
        teacher: (4, bins) probabilities.
        students: The same by name of the student.
        pixels: ``ByteTensor[3, H, W]`` of the view.
    """

    key: ViewKey
    box_xyxy: NDArray[np.float32]
    label: int
    point_xy: NDArray[np.float32]
    stride: float
    target: NDArray[np.float32]
    teacher: NDArray[np.float64]
    students: Mapping[str, NDArray[np.float64]]
    pixels: Tensor

    @property
    def entropy(self) -> NDArray[np.float64]:
        """(4,) of the teacher's distributions, nats."""
        return entropy_of(self.teacher)


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How near a student's edge distributions are to the teacher's: mean KL, nats, at temperature 1."""

    student: str
    main: float | None
    """In the main region; ``None`` if the sample has no such point."""
    valuable: float | None
    """In the valuable region alone."""


def sample_views(
    store: TargetStore, manifest: Manifest, students: Mapping[str, GFL], device: torch.device
) -> list[SampledView]:
    """Read an even sample of the store's views, and run the students on them."""
    for model in students.values():
        model.eval().to(device)
    return [
        sample_view(store, manifest, students, key, device) for key in spread_keys(store.keys, SAMPLED_VIEWS)
    ]


@torch.inference_mode()
def sample_view(
    store: TargetStore, manifest: Manifest, students: Mapping[str, GFL], key: ViewKey, device: torch.device
) -> SampledView:
    """One stored view, and what the students say at its points."""
    stored = store.read(key)
    geometry, kept = stored.view.geometry, stored.view.points
    record = manifest.image(key.image_id)
    conventions = store.conventions
    image = read_image(manifest.image_path(record), geometry.original_hw)
    pixels = apply_view(image, geometry, conventions.preprocessing)
    grid = store.schema.pyramid.grid(geometry.padded_hw)
    flat = grid.flatten(kept.level, kept.position)
    images = batch_images([pixels], [geometry.padded_hw], conventions.preprocessing).to(device)
    return SampledView(
        stored=stored,
        pixels=pixels,
        points_xy=grid.points[flat],
        strides=grid.point_strides[flat],
        teacher=softmax(stored.edge_logits()),
        students={
            name: softmax(model(images).edge_logits[0].float().cpu()[flat].numpy())
            for name, model in students.items()
        },
    )


def lessons_of(view: SampledView) -> Iterator[Lesson]:
    """A lesson for every object of a view that is large enough and within reach of the distributions."""
    planned = view.stored.view
    for box, label in enumerate(planned.labels.tolist()):
        point = _surest_point(view.stored, box, label)
        if point is None:
            continue
        lesson = _lesson(view, box, label, point)
        if _is_shown(lesson):
            yield lesson


def _surest_point(stored: StoredView, box: int, label: int) -> int | None:
    """The main-region point of a box where the teacher's logit of its class is largest."""
    main = np.flatnonzero(stored.view.points.main_region)
    mine = stored.view.points.main_gt[main] == box
    if not mine.any():
        return None
    scores = np.where(mine, stored.cls_logits()[:, label], -np.inf)
    return int(main[scores.argmax()])


def _lesson(view: SampledView, box: int, label: int, point: int) -> Lesson:
    planned = view.stored.view
    boxes, xy = planned.boxes_xyxy[box], view.points_xy[point]
    distances = encode_distances(torch.from_numpy(xy), torch.from_numpy(boxes)).numpy()
    return Lesson(
        key=planned.key,
        box_xyxy=boxes,
        label=label,
        point_xy=xy,
        stride=float(view.strides[point]),
        target=distances / view.strides[point],
        teacher=view.teacher[point],
        students={name: said[point] for name, said in view.students.items()},
        pixels=view.pixels,
    )


def _is_shown(lesson: Lesson) -> bool:
    sides = lesson.target[:2] + lesson.target[2:]
    last_bin = lesson.teacher.shape[-1] - 1
    return bool((sides >= MIN_SIDE_STRIDES).all() and (lesson.target <= last_bin).all())


def choose_lessons(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Objects from sharp to ambiguous by the teacher's entropy, at most one of a view.

    The first is the sharpest one, a third are those of the largest contrast between their edges, and the
    rest are those of the highest entropy.
    """
    orders = (
        sorted(lessons, key=lambda lesson: float(lesson.entropy.mean())),
        sorted(lessons, key=lambda lesson: float(-np.ptp(lesson.entropy))),
        sorted(lessons, key=lambda lesson: float(-lesson.entropy.mean())),
    )
    chosen: list[Lesson] = []
    for order, end in zip(orders, (1, 1 + LESSONS // 3, LESSONS), strict=True):
        for lesson in order:
            if len(chosen) < end and lesson.key not in {other.key for other in chosen}:
                chosen.append(lesson)
    return sorted(chosen, key=lambda lesson: float(lesson.entropy.mean()))


def measure_closeness(views: Sequence[SampledView], student: str) -> Closeness:
    """Mean KL of a student from the teacher over the points of sampled views."""
    divergence = np.concatenate([kl(view.teacher, view.students[student]).mean(axis=1) for view in views])
    main = np.concatenate([view.stored.view.points.main_region for view in views])
    return Closeness(student=student, main=_mean(divergence[main]), valuable=_mean(divergence[~main]))


def kl(teacher: NDArray[np.float64], student: NDArray[np.float64]) -> NDArray[np.float64]:
    """``sum(q log(q / p))`` over the last axis, nats, of teacher ``q`` and student ``p``."""
    ratio = np.log(np.maximum(teacher, SMALLEST)) - np.log(np.maximum(student, SMALLEST))
    return np.asarray((teacher * ratio).sum(axis=-1))


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None
