"""One stored view and what the teacher said there, ready to be drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.store.tools.points import PointPlaces, locate_points
from pipeline.views.types import ViewKey

SHOWN_OBJECTS = 4
"""Objects whose edge distributions are drawn."""

GRAY = 208
"""Level of the canvas where there is no image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownView:
    """A stored view with its pixels.

    Attributes:
        stored: As the store has it.
        places: Where its points lie.
        strides: Of the pyramid levels, px.
        pixels: (H, W, 3) uint8 of the view, not padded.
        class_names: By label; a label without a name is shown as a number.
    """

    stored: StoredView
    places: PointPlaces
    strides: tuple[int, ...]
    pixels: NDArray[np.uint8]
    class_names: Mapping[int, str]

    def __post_init__(self) -> None:
        expected = (*self.size_hw, 3)
        assert self.pixels.shape == expected, f"expected {expected}, but got {self.pixels.shape}"

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the view, px, not padded."""
        return self.stored.view.geometry.resized_hw

    def class_name(self, box: int) -> str:
        """Class of the view's ``box``-th object."""
        label = int(self.stored.view.labels[box])
        return self.class_names.get(label, f"class {label}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownObject:
    """What the teacher says of one object, at the main-region point where it is surest of its class.

    Attributes:
        box: Index of the object in its view.
        point_xy: (2,) px of the view.
        stride: Of the point's level, px.
        level: Index of the level.
        score: The teacher's probability of the object's class.
        probabilities: (4, bins) at temperature 1; bin ``i`` stands for a distance of ``i * stride`` px.
        distances_px: (4,) their means: left, top, right, bottom.
        target_px: (4,) the true distances.
        teacher_xyxy: (4,) the box of ``distances_px``, px of the view.
    """

    box: int
    point_xy: NDArray[np.float32]
    stride: int
    level: int
    score: float
    probabilities: NDArray[np.float64]
    distances_px: NDArray[np.float64]
    target_px: NDArray[np.float64]
    teacher_xyxy: NDArray[np.float64]


def gray_canvas(size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """What a view is drawn on without its image: (H, W, 3)."""
    return np.full((*size_hw, 3), GRAY, np.uint8)


def show_view(
    store: TargetStore,
    key: ViewKey,
    pixels: NDArray[np.uint8] | None,
    class_names: Mapping[int, str],
) -> ShownView:
    """Read a view.

    Args:
        store: The store.
        key: A view of it.
        pixels: Of the view, not padded; ``None`` draws it on gray.
        class_names: By label.

    Raises:
        CacheError: The view is not stored, or its partition is damaged.
    """
    stored = store.read(key)
    return ShownView(
        stored=stored,
        places=locate_points(stored.view, store.schema.pyramid),
        strides=store.schema.strides,
        pixels=gray_canvas(stored.view.geometry.resized_hw) if pixels is None else pixels,
        class_names=class_names,
    )


def choose_objects(view: ShownView, most: int = SHOWN_OBJECTS) -> list[ShownObject]:
    """Objects with points in the main region, spread from the largest to the smallest; from left to right."""
    planned = view.stored.view
    sides = planned.boxes_xyxy[:, 2:] - planned.boxes_xyxy[:, :2]
    by_size = np.argsort(-sides.prod(axis=1), kind="stable").tolist()
    points = {box: _surest_point(view.stored, box) for box in by_size}
    seen = [(box, point) for box, point in points.items() if point is not None]
    spread = np.linspace(0, len(seen) - 1, min(most, len(seen))).round().astype(int).tolist()
    return sorted(
        (_show_object(view, *seen[place]) for place in spread),
        key=lambda shown: float(planned.boxes_xyxy[shown.box, 0]),
    )


def _surest_point(stored: StoredView, box: int) -> int | None:
    """The main-region point of a box where the teacher's logit of its class is largest."""
    main = np.flatnonzero(stored.view.points.main_region)
    mine = stored.view.points.main_gt[main] == box
    if not mine.any():
        return None
    scores = np.where(mine, stored.cls_logits()[:, int(stored.view.labels[box])], -np.inf)
    return int(main[scores.argmax()])


def _show_object(view: ShownView, box: int, point: int) -> ShownObject:
    planned = view.stored.view
    logits = view.stored.edge_logits()[point].astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = powers / powers.sum(axis=-1, keepdims=True)
    stride, xy = int(view.places.stride[point]), view.places.xy[point]
    distances = (probabilities * np.arange(logits.shape[-1])).sum(axis=-1) * stride
    row = int(np.count_nonzero(planned.points.main_region[:point]))
    logit = float(view.stored.cls_logits()[row, int(planned.labels[box])])
    corners = planned.boxes_xyxy[box].astype(np.float64)
    return ShownObject(
        box=box,
        point_xy=xy,
        stride=stride,
        level=int(planned.points.level[point]),
        score=float(1 / (1 + np.exp(-logit))),
        probabilities=probabilities,
        distances_px=distances,
        target_px=np.concatenate([xy - corners[:2], corners[2:] - xy]),
        teacher_xyxy=np.concatenate([xy - distances[:2], xy + distances[2:]]),
    )
