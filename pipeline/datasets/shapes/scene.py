"""An image under construction, and the clutter on it that belongs to no class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from pipeline.datasets.shapes.draws import (
    Box,
    Color,
    Floats,
    Point,
    Range,
    Window,
    cos_sin,
    log_uniform,
    pick_weighted,
    smoothstep,
    uniform,
)
from pipeline.datasets.shapes.outlines import bar, edge_alpha, move_outline, outline_distance, outline_extent
from pipeline.datasets.shapes.surfaces import contrasting, stripes, value_noise

MIN_VISIBLE_SHARE = 0.45
"""Share of an object's pixels inside the image that later layers leave visible."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something to paint on a window: opacity ``alpha (h, w)`` and ``color``, ``(h, w, 3)`` or ``(3,)``."""

    window: Window
    alpha: Floats
    color: Floats


@dataclass(frozen=True, kw_only=True)
class ShapeObject:
    """One labelled object of an image."""

    category_id: int
    """COCO-like id."""
    box_xyxy: Box
    """Tight box, px, of that part of the un-occluded outline that lies inside the image."""
    pixels: int
    visible: NDArray[np.bool_] = field(compare=False, repr=False)
    """``(H, W)``; shrinks while later layers hide the object."""


class Scene:
    """An image under construction: ``canvas (H, W, 3)`` in [0, 1] and the objects on it, bottom to top."""

    def __init__(self, canvas: Floats, scale: float) -> None:
        """Start from a background; ``scale`` is the size of a reference pixel."""
        self.canvas = canvas
        self.height, self.width, _ = canvas.shape
        self.scale = scale
        self.objects: list[ShapeObject] = []

    def window(self, extent: Box, margin: float) -> Window:
        """Pixels within ``margin`` px of an xyxy box of which something lies inside the image."""
        left, top = (max(math.floor(low - margin), 0) for low in extent[:2])
        right, bottom = math.ceil(extent[2] + margin), math.ceil(extent[3] + margin)
        window = Window(top=top, bottom=min(bottom, self.height), left=left, right=min(right, self.width))
        assert min(window.right - window.left, window.bottom - window.top) > 0, "nothing is in the image"
        return window

    def color_at(self, point: Point) -> Color:
        """Color of the pixel nearest to a point."""
        row = min(max(math.floor(point[1]), 0), self.height - 1)
        column = min(max(math.floor(point[0]), 0), self.width - 1)
        return tuple(self.canvas[row, column].tolist())

    def paint(self, layer: Layer) -> bool:
        """Paint a layer unless it would hide too much of an object; tell whether it was painted."""
        cover = layer.alpha > 0.5
        for placed in self.objects:
            hidden = np.count_nonzero(placed.visible[layer.window.pixels] & cover)
            if np.count_nonzero(placed.visible) - hidden < MIN_VISIBLE_SHARE * placed.pixels:
                return False
        region = self.canvas[layer.window.pixels]
        region += layer.alpha[:, :, None] * (layer.color - region)
        for placed in self.objects:
            placed.visible[layer.window.pixels] &= ~cover
        return True


def _random_point(rng: RandomState, scene: Scene) -> Point:
    return uniform(rng, 0.0, scene.width), uniform(rng, 0.0, scene.height)


def _around(scene: Scene, center: Point, reach: float) -> Window:
    x, y = center
    return scene.window((x - reach, y - reach, x + reach, y + reach), 1.0)


def _faded(rng: RandomState, scene: Scene, window: Window, center: Point, alpha: Floats) -> Layer:
    contrast = log_uniform(rng, 0.12, 0.5)
    color = np.array(contrasting(rng, scene.color_at(center), contrast))
    return Layer(window=window, alpha=alpha * uniform(rng, 0.6, 1.0), color=color)


def _line(rng: RandomState, scene: Scene) -> Layer:
    center = _random_point(rng, scene)
    half = log_uniform(rng, 8.0, 60.0) * scene.scale
    thickness = uniform(rng, 0.35, 1.0) * scene.scale
    outline = move_outline((bar(half, thickness, cos_sin(uniform(rng, 0.0, 1.0))),), 1.0, center)
    window = scene.window(outline_extent(outline), 2.0)
    blur = uniform(rng, 0.8, 1.8) * scene.scale
    return _faded(rng, scene, window, center, edge_alpha(outline_distance(outline, window.x, window.y), blur))


def _arc(rng: RandomState, scene: Scene) -> Layer:
    """A thin piece, at most half, of a circle."""
    center = _random_point(rng, scene)
    radius = log_uniform(rng, 5.0, 40.0) * scene.scale
    window = _around(scene, center, radius + 2.0 * scene.scale)
    dx, dy = window.x - center[0], window.y - center[1]
    ring = np.abs(np.sqrt(dx * dx + dy * dy) - radius) - uniform(rng, 0.3, 0.9) * scene.scale
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    cut = uniform(rng, 0.0, 0.6) * radius - (c * dx + s * dy)
    return _faded(rng, scene, window, center, edge_alpha(np.maximum(ring, cut), 1.2 * scene.scale))


def _blob(rng: RandomState, scene: Scene) -> Layer:
    """A ragged smudge: a paraboloid broken up by noise, with no outline of its own."""
    center, radius, window, hill = _hill(rng, scene, (4.0, 16.0))
    noise = value_noise(rng, window.x, window.y, 0.35 * radius)
    alpha = smoothstep(hill * (3.6 * noise - 1.0) * uniform(rng, 0.9, 1.4))
    return _faded(rng, scene, window, center, alpha)


def _stripe_patch(rng: RandomState, scene: Scene) -> Layer:
    """Stripes that fade out in every direction."""
    center, _, window, hill = _hill(rng, scene, (10.0, 35.0))
    pattern = stripes(rng, window.x, window.y, log_uniform(rng, 3.0, 10.0) * scene.scale)
    return _faded(rng, scene, window, center, hill * hill * pattern)


def _hill(rng: RandomState, scene: Scene, radii: Range) -> tuple[Point, float, Window, Floats]:
    """A paraboloid from 1 at a random center to 0 at a random radius, px: both, its window and its height."""
    center = _random_point(rng, scene)
    radius = log_uniform(rng, *radii) * scene.scale
    window = _around(scene, center, radius)
    dx, dy = (window.x - center[0]) / radius, (window.y - center[1]) / radius
    return center, radius, window, np.maximum(1.0 - (dx * dx + dy * dy), 0.0)


def scatter(rng: RandomState, scene: Scene, weights: Sequence[float], count: int) -> None:
    """Paint clutter: lines, arcs, smudges and patches of stripes in the proportion of ``weights``."""
    for _ in range(count):
        scene.paint((_line, _arc, _blob, _stripe_patch)[pick_weighted(rng, weights)](rng, scene))
