"""Stored views ready to be drawn, and objects in them: what teacher and students predict of every edge."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import kl_div

from pipeline.core.paths import RunPaths
from pipeline.detector.gfl import load_detector
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import DecodedView
from pipeline.views.images import apply_view, network_input, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.types import NOT_MAIN, ViewKey

T = TypeVar("T")

SAMPLED_VIEWS = 48
"""Stored views that are decoded, and on which the students are run."""

GRAY = 208
"""Level of the canvas where there is no image."""


class ShownView(DecodedView):
    """A stored view with its pixels."""

    def __init__(
        self,
        store: TargetStore,
        key: ViewKey,
        pixels: Tensor | None = None,
        students: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Read a view of a store; errors as of ``TargetStore.view``.

        ``pixels`` are ``ByteTensor[3, H, W]``, not padded, gray by default; ``students`` are edge logits
        ``Tensor[N, 4, bins]`` at all positions by name.
        """
        super().__init__(store.read(key), store.pyramid, store.conventions.preprocessing)
        shape = (3, *self.geometry.resized_hw)
        self.pixels = torch.full(shape, GRAY, dtype=torch.uint8) if pixels is None else pixels
        self.class_names = [c.name or f"class {label}" for label, c in enumerate(store.classes)]
        self.students = {name: logits[self._cells] for name, logits in (students or {}).items()}
        """``Tensor[P, 4, bins]``: edge logits at the kept points by name of the student."""
        self.title = f"image {key.image_id}{', flipped' * self.geometry.flip}"


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` of some items, evenly spread from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


@torch.inference_mode()
def sample_views(
    folder: RunPaths, store: TargetStore, manifest: Manifest, students: Sequence[str], device: torch.device
) -> list[ShownView]:
    """Read one view, by turns, of each of some evenly spread images, and run students on it."""
    preprocessing = store.conventions.preprocessing
    models = {name: load_detector(folder.student_weights(name)).eval().to(device) for name in students}
    views = []
    for turn, image_id in enumerate(spread(store.image_ids, SAMPLED_VIEWS)):
        numbers = store.views(image_id)
        key = ViewKey(image_id, numbers[turn % len(numbers)])
        geometry = store.geometry(key)
        file = manifest.image_path(manifest.image(image_id))
        pixels = apply_view(read_image(file, geometry.original_hw), geometry, preprocessing)
        images = network_input(pixels, geometry.padded_hw, preprocessing).to(device)
        logits = {name: model(images).edge_logits[0].float().cpu() for name, model in models.items()}
        views.append(ShownView(store, key, pixels, logits))
    return views


class EdgeExample:
    """One object of a view, at the main-region point where the teacher is surest of its class.

    Edges are in the order left, top, right, bottom; bin ``i`` stands for a distance of ``i`` strides.
    """

    def __init__(self, view: ShownView, box: int) -> None:
        self.view, self.box = view, box
        label, main = int(view.labels[box]), view.main != NOT_MAIN
        logits = np.where(view.main[main] == box, view.cls_logits[:, label], -np.inf)
        point = int(np.flatnonzero(main)[logits.argmax()])
        self.class_name = view.class_names[label]
        self.score = float(1 / (1 + np.exp(-logits.max())))
        """The teacher's probability of the object's class."""
        self.level, self.stride = f"P{int(view.level[point]) + 3}", float(view.stride[point])
        """Name of the point's level, and its stride, px."""
        self.box_xyxy = view.boxes[box].astype(np.float64)
        self.point_xy = view.points_xy[point].astype(np.float64)
        """(4,) the true box and (2,) the point, px of the view."""
        self.target = (self.box_xyxy - np.tile(self.point_xy, 2)) * (-1, -1, 1, 1) / self.stride
        """(4,) true distances, strides."""
        self.teacher = _softmax(torch.from_numpy(view.edge_logits[point]))
        """(4, bins) probabilities at temperature 1, from the store."""
        self.students = {name: _softmax(values[point]) for name, values in view.students.items()}
        """The same by name of the student."""
        self.entropy = np.asarray(torch.special.entr(torch.from_numpy(self.teacher)).sum(dim=-1))
        """(4,) of the teacher's distributions, nats."""
        self.distances = self.teacher @ np.arange(self.teacher.shape[-1])
        """(4,) means of the teacher's distributions, strides."""
        self.teacher_xyxy = np.tile(self.point_xy, 2) + self.distances * (-1, -1, 1, 1) * self.stride
        """(4,) the box that the means decode to, px of the view."""
        self.contrast = float(np.ptp(self.entropy))
        """How much its edges differ in sharpness, nats."""
        sides, reach = self.target[:2] + self.target[2:], self.teacher.shape[-1] - 1
        self.is_clear = bool((sides >= 2).all() and (self.target <= reach).all())
        """It is two strides wide and high, for less shows little, and its edges are in reach of the bins."""


def edge_examples(view: ShownView) -> list[EdgeExample]:
    """Every object with a main-region point."""
    return [EdgeExample(view, box) for box in np.unique(view.main[view.main != NOT_MAIN]).tolist()]


def _softmax(logits: Tensor) -> NDArray[np.float64]:
    return np.asarray(logits.double().softmax(dim=-1), np.float64)


def choose_examples(views: Sequence[ShownView]) -> list[EdgeExample]:
    """The clear object of the largest contrast of every view that has one, from sharp to ambiguous."""
    clear = ([example for example in edge_examples(view) if example.is_clear] for view in views)
    chosen = [max(examples, key=lambda example: example.contrast) for examples in clear if examples]
    return sorted(chosen, key=lambda example: float(example.entropy.mean()))


def mean_kl(views: Sequence[ShownView], student: str) -> list[float | None]:
    """Mean KL of a student from the teacher, nats: in main, in valuable region; ``None`` without a point."""
    teacher = torch.cat([torch.from_numpy(view.edge_logits) for view in views]).double().log_softmax(dim=-1)
    learned = torch.cat([view.students[student] for view in views]).double().log_softmax(dim=-1)
    divergence = kl_div(learned, teacher, reduction="none", log_target=True).sum(dim=-1).mean(dim=1)
    main = torch.from_numpy(np.concatenate([view.main for view in views]) != NOT_MAIN)
    return [float(divergence[chosen].mean()) if chosen.any() else None for chosen in (main, ~main)]
