"""Stored views ready to be drawn, and objects in them: what teacher and students predict of every edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import kl_div

from pipeline.detector.gfl import GFL
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.images import apply_view, network_input, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.types import ViewKey

T = TypeVar("T")

SAMPLED_VIEWS = 48
"""Stored views that are decoded, and on which the students are run."""

GRAY = 208
"""Level of the canvas where there is no image."""

EXAMPLES = 6
"""Objects that the page shows."""

MIN_SIDE_STRIDES = 2.0
"""An object on the page is at least this wide and high: of a smaller one there is little to see."""

MIN_PROBABILITY = 1e-300
"""No logarithm is taken of less."""

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownView:
    """A stored view with its pixels."""

    stored: StoredView
    pixels: Tensor
    """``ByteTensor[3, H, W]`` of the view, not padded."""
    points_xy: NDArray[np.float32]
    """``(P, 2)`` px of the view."""
    point_strides: NDArray[np.float32]
    """``(P,)`` px."""
    teacher: NDArray[np.float64]
    """``(P, 4, bins)`` probabilities at temperature 1, from the store."""
    students: Mapping[str, NDArray[np.float64]]
    """The same by name of the student."""
    level_strides: tuple[int, ...]
    """Strides of the pyramid levels, px."""
    class_names: Sequence[str]
    """By label."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the view, px, not padded."""
        return self.stored.view.geometry.resized_hw

    @property
    def title(self) -> str:
        """Which view it is."""
        return f"image {self.stored.view.key.image_id}{', flipped' * self.stored.view.geometry.flip}"


def show_view(
    store: TargetStore,
    key: ViewKey,
    pixels: Tensor | None,
    class_names: Sequence[str],
    students: Mapping[str, Tensor] | None = None,
) -> ShownView:
    """Read a view of a store; errors as of ``TargetStore.view``.

    ``pixels`` are ``ByteTensor[3, H, W]`` of the view, not padded, or ``None`` for gray; ``class_names`` that
    lack are numbers; ``students`` have edge logits ``Tensor[N, 4, bins]`` at all positions, by their names.
    """
    stored, schema = store.read(key), store.schema
    geometry, points = stored.view.geometry, stored.view.points
    canvas = torch.full((3, *geometry.resized_hw), GRAY, dtype=torch.uint8) if pixels is None else pixels
    assert canvas.shape == (3, *geometry.resized_hw), f"expected {geometry.resized_hw}, got {canvas.shape}"
    grid = schema.pyramid.grid(geometry.padded_hw)
    flat = grid.flatten(points.level, points.position)
    numbers = [f"class {label}" for label in range(len(class_names), schema.num_classes)]
    return ShownView(
        stored=stored,
        pixels=canvas,
        points_xy=grid.points[flat],
        point_strides=grid.point_strides[flat],
        teacher=softmax(torch.from_numpy(stored.edge_logits())),
        students={name: softmax(logits[flat]) for name, logits in (students or {}).items()},
        level_strides=schema.strides,
        class_names=[*class_names, *numbers],
    )


def softmax(logits: Tensor) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    return np.asarray(logits.double().softmax(dim=-1), np.float64)


def spread_keys(keys: Sequence[ViewKey], count: int) -> list[ViewKey]:
    """A view of each of at most ``count`` evenly spread images, taking the views of an image in turn."""
    by_image: dict[int, list[ViewKey]] = {}
    for key in keys:
        by_image.setdefault(key.image_id, []).append(key)
    images = list(by_image.values())
    return [image[turn % len(image)] for turn, image in enumerate(spread(images, count))]


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of some items, evenly spread from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


@torch.inference_mode()
def sample_views(
    store: TargetStore, manifest: Manifest, students: Mapping[str, GFL], device: torch.device
) -> list[ShownView]:
    """Read an even sample of the store's views, and run the students on them."""
    names = [category.name for category in manifest.categories]
    preprocessing = store.schema.conventions.preprocessing
    for model in students.values():
        model.eval().to(device)
    views = []
    for key in spread_keys(store.keys, SAMPLED_VIEWS):
        geometry = store.geometry(key)
        file = manifest.image_path(manifest.image(key.image_id))
        pixels = apply_view(read_image(file, geometry.original_hw), geometry, preprocessing)
        images = network_input(pixels, geometry.padded_hw, preprocessing).to(device)
        logits = {name: model(images).edge_logits[0].float().cpu() for name, model in students.items()}
        views.append(show_view(store, key, pixels, names, logits))
    return views


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
