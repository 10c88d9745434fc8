"""Stored views ready to be drawn: pixels, points, and what teacher and students predict of every edge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.images import apply_view, network_input, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.types import ViewKey

if TYPE_CHECKING:
    from pipeline.detector.gfl import GFL

T = TypeVar("T")

SAMPLED_VIEWS = 48
"""Stored views that are decoded, and on which the students are run."""

GRAY = 208
"""Level of the canvas where there is no image."""


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
    store: TargetStore, manifest: Manifest, students: Mapping[str, "GFL"], device: torch.device
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
