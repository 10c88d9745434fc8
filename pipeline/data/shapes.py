"""``shapes``: a procedural detection dataset in COCO layout whose difficulty is localization.

Rotated, textured objects of four classes, edges 0.6 to 5 px wide, clear to faint, of very different sizes,
partly hidden by each other and by unlabelled clutter.

The same bytes on every machine: random numbers come from ``RandomState.random_sample`` alone (its stream is
frozen by NEP 19; ``randint`` depends on the platform's long), arrays see only operations that IEEE 754 rounds
exactly, one per call so that no compiler fuses two, and scalar ``math`` results are rounded before use.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ConfigError

CATEGORIES: tuple[tuple[int, str], ...] = ((1, "ellipse"), (3, "rectangle"), (4, "triangle"), (7, "cross"))

# All pixel sizes below are for a long edge of 96 and scale with it.
REFERENCE_LONG_EDGE = 96
MIN_OBJECT_PX = 14.0
MAX_OBJECT_SHARE = 0.75  # of the long edge
BLUR_PX = (0.6, 6.0)
TINTS = ((0.85, 0.25, 0.2), (0.2, 0.7, 0.3), (0.2, 0.35, 0.9), (0.95, 0.8, 0.2))
"""What the surfaces of a class lean to: what an object is shows better than where it ends, as in photos."""
TINT_SHARE = (0.3, 0.9)  # of the tint in a surface, the rest being what lies under it: faint to clear
MIN_BOX_PX = 4.0  # of a clipped box; does not scale, it is what a detector can still resolve
MIN_VISIBLE_SHARE = 0.45  # of the pixels of an object that lie inside the image
EMPTY_SHARE = 0.04
COUNT_WEIGHTS = (0.16, 0.27, 0.25, 0.16, 0.10, 0.06)  # of 1, 2, ... objects
PLACEMENT_TRIES = 8
FIRST_VAL_ID = 1_000_001
IDS_PER_IMAGE = 10  # annotation ids reserved for one image; more than the largest number of objects

Floats = NDArray[np.float64]
Point = tuple[float, float]
Colour = tuple[float, float, float]
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ShapesConfig:
    """What determines every byte of the dataset.

    Attributes:
        seed: of all random numbers, 0 to 2**32 - 1.
        train_images: number of images in ``train``.
        val_images: number of images in ``val``.
        long_edge: pixels, even; the short edge is the same or about 5/6 of it, even too.
    """

    seed: int
    train_images: int
    val_images: int
    long_edge: int

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` for a value out of range."""
        limits = {
            "seed": (0, 2**32 - 1),
            "train_images": (1, FIRST_VAL_ID - 1),
            "val_images": (1, FIRST_VAL_ID - 1),
            "long_edge": (32, 2048),
        }
        for field in fields(self):
            _check_integer(field.name, getattr(self, field.name), limits[field.name])
        if self.long_edge % 2:
            raise ConfigError(
                f"shapes.long_edge: expected an even number of pixels, but got {self.long_edge}"
            )


def _check_integer(key: str, value: object, limits: tuple[int, int]) -> None:
    low, high = limits
    # bool is an int to isinstance, and `true` in YAML is never a meant number
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"shapes.{key}: expected an integer from {low} to {high}, but got {value!r}")


@dataclass(frozen=True, kw_only=True)
class ShapeObject:
    """One labelled object of an image.

    Attributes:
        category_id: COCO-like id, see ``CATEGORIES``.
        box_xyxy: tight box, in pixels, of that part of the un-occluded outline that lies inside the image.
        visible_share: share of the object's pixels inside the image that nothing hides.
    """

    category_id: int
    box_xyxy: tuple[float, float, float, float]
    visible_share: float


class ConvexPart(Protocol):
    """A convex region of the plane, x to the right and y down, in pixels."""

    def distance(self, x: Floats, y: Floats) -> Floats:
        """Approximate signed distance in px: negative inside, zero on the outline; ``x``, ``y`` broadcast."""

    def x_range(self, y_band: Range) -> Range | None:
        """Smallest and largest x of the region within ``y_band``; ``None`` where they do not meet."""

    def transposed(self) -> "ConvexPart":
        """Return the region with x and y swapped."""

    def placed(self, scale: float, centre: Point) -> "ConvexPart":
        """Return the region scaled about the origin, then moved by ``centre``."""


@dataclass(frozen=True, kw_only=True)
class EllipsePart:
    """The ellipse ``d^T M^-1 d <= 1``, ``d = (x, y) - centre``, ``M = [[xx, xy], [xy, yy]]`` in px^2."""

    centre: Point
    xx: float
    yy: float
    xy: float

    def distance(self, x: Floats, y: Floats) -> Floats:
        """First-order distance ``(f - 1) / |grad f|`` with ``f = sqrt(d^T M^-1 d)``."""
        det = self.xx * self.yy - self.xy * self.xy
        dx, dy = x - self.centre[0], y - self.centre[1]
        mx = (self.yy / det) * dx - (self.xy / det) * dy
        my = (self.xx / det) * dy - (self.xy / det) * dx
        f = np.sqrt(np.maximum(dx * mx + dy * my, 0.0))
        # |grad f| = |M^-1 d| / f; the small number only serves the centre itself, where both vanish
        return (f - 1.0) * ((f + 1e-9) / (np.sqrt(mx * mx + my * my) + 1e-9))

    def x_range(self, y_band: Range) -> Range | None:
        """The left and right outlines are convex in y, so the extreme point is moved into the band."""
        low, high = y_band[0] - self.centre[1], y_band[1] - self.centre[1]
        top = math.sqrt(self.yy)
        if low >= top or high <= -top:
            return None
        dy_right = self.xy / math.sqrt(self.xx)
        right = self._half_chord(min(max(dy_right, low), high))[1]
        left = self._half_chord(min(max(-dy_right, low), high))[0]
        return self.centre[0] + left, self.centre[0] + right

    def _half_chord(self, dy: float) -> Range:
        middle = self.xy / self.yy * dy
        squared = (self.xx - self.xy * self.xy / self.yy) * (1.0 - dy * dy / self.yy)
        half = math.sqrt(max(squared, 0.0))
        return middle - half, middle + half

    def transposed(self) -> "EllipsePart":
        """Return the ellipse with x and y swapped."""
        return EllipsePart(centre=self.centre[::-1], xx=self.yy, yy=self.xx, xy=self.xy)

    def placed(self, scale: float, centre: Point) -> "EllipsePart":
        """Return the ellipse scaled about the origin, then moved by ``centre``."""
        area = scale * scale
        return EllipsePart(
            centre=_place(self.centre, scale, centre), xx=self.xx * area, yy=self.yy * area, xy=self.xy * area
        )


@dataclass(frozen=True, kw_only=True)
class PolygonPart:
    """A convex polygon; its vertices turn from +x towards +y, so ``(dy, -dx)`` of an edge points outwards."""

    vertices: tuple[Point, ...]

    def _edges(self) -> Iterable[tuple[Point, Point]]:
        return zip(self.vertices, self.vertices[1:] + self.vertices[:1], strict=True)

    def distance(self, x: Floats, y: Floats) -> Floats:
        """Largest distance to the edges' lines: mitred corners, so that blur does not shrink the outline."""
        result: Floats | None = None
        for (x1, y1), (x2, y2) in self._edges():
            dx, dy = x2 - x1, y2 - y1
            length = math.sqrt(dx * dx + dy * dy)
            plane = (dy / length) * (x - x1) - (dx / length) * (y - y1)
            result = plane if result is None else np.maximum(result, plane)
        assert result is not None
        return result

    def x_range(self, y_band: Range) -> Range | None:
        """Extremes lie at vertices inside the band or where an edge crosses one of its limits."""
        candidates = [x for x, y in self.vertices if y_band[0] <= y <= y_band[1]]
        for (x1, y1), (x2, y2) in self._edges():
            for limit in y_band:
                if min(y1, y2) < limit < max(y1, y2):
                    candidates.append(x1 + (limit - y1) / (y2 - y1) * (x2 - x1))
        return (min(candidates), max(candidates)) if candidates else None

    def transposed(self) -> "PolygonPart":
        """Return the polygon with x and y swapped, in the order that keeps the edges' normals outwards."""
        return PolygonPart(vertices=tuple((y, x) for x, y in reversed(self.vertices)))

    def placed(self, scale: float, centre: Point) -> "PolygonPart":
        """Return the polygon scaled about the origin, then moved by ``centre``."""
        return PolygonPart(vertices=tuple(_place(vertex, scale, centre) for vertex in self.vertices))


def _place(point: Point, scale: float, centre: Point) -> Point:
    return point[0] * scale + centre[0], point[1] * scale + centre[1]


Outline = tuple[ConvexPart, ...]  # the union of its parts


def outline_distance(outline: Outline, x: Floats, y: Floats) -> Floats:
    """Signed distance-like field of the union of the parts, in px, negative inside."""
    result = outline[0].distance(x, y)
    for part in outline[1:]:
        result = np.minimum(result, part.distance(x, y))
    return result


def edge_alpha(distance: Floats, blur: float) -> Floats:
    """Opacity ``smoothstep(0.5 - distance / blur)``: 0.5 on the outline; ``blur`` is the edge's width, px."""
    return _smoothstep(0.5 - distance / blur)


def outline_box(outline: Outline, width: float, height: float) -> tuple[float, float, float, float] | None:
    """Tight xyxy box of the outline cut at ``[0, width] x [0, height]``; ``None`` if nothing lies inside.

    It is the box of what remains, not the cut box of the whole: the latter would ask for edges set by corners
    that are not in the image.
    """
    boxes = []
    for part in outline:
        across = _overlap(part.x_range((0.0, height)), width)
        down = _overlap(part.transposed().x_range((0.0, width)), height)
        if across is not None and down is not None:
            boxes.append((across[0], down[0], across[1], down[1]))
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _overlap(span: Range | None, size: float) -> Range | None:
    if span is None or span[0] >= size or span[1] <= 0.0:
        return None
    return max(span[0], 0.0), min(span[1], size)


def outline_extent(outline: Outline) -> tuple[float, float, float, float]:
    """Tight xyxy box of the whole outline, wherever it lies."""
    everywhere = (-math.inf, math.inf)
    across = [part.x_range(everywhere) for part in outline]
    down = [part.transposed().x_range(everywhere) for part in outline]
    xs = [x for span in across if span is not None for x in span]
    ys = [y for span in down if span is not None for y in span]
    return min(xs), min(ys), max(xs), max(ys)


def _uniform(rng: RandomState, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random_sample())


def _log_uniform(rng: RandomState, low: float, high: float) -> float:
    return round(low * math.exp(_uniform(rng, 0.0, math.log(high / low))), 4)


def _pick(rng: RandomState, count: int) -> int:
    return int(float(rng.random_sample()) * count)


def _pick_weighted(rng: RandomState, weights: Sequence[float]) -> int:
    left = float(rng.random_sample())
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0.0:
            return index
    return len(weights) - 1


def _cos_sin(turn: float) -> Point:
    """Cosine and sine of a share of a full turn, rounded: the last bit of libm differs between machines."""
    angle = 2.0 * math.pi * turn
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _bar(half_long: float, half_short: float, direction: Point) -> PolygonPart:
    c, s = direction
    corners = ((1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))
    spans = ((u * half_long, v * half_short) for u, v in corners)
    return PolygonPart(vertices=tuple((u * c - v * s, u * s + v * c) for u, v in spans))


def _ellipse(rng: RandomState) -> Outline:
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    short = _uniform(rng, 0.42, 1.0)
    square = short * short
    return (
        EllipsePart(
            centre=(0.0, 0.0), xx=c * c + square * s * s, yy=s * s + square * c * c, xy=(1.0 - square) * c * s
        ),
    )


def _rectangle(rng: RandomState) -> Outline:
    direction = _cos_sin(_uniform(rng, 0.0, 1.0))
    return (_bar(1.0, _uniform(rng, 0.38, 1.0), direction),)


def _triangle(rng: RandomState) -> Outline:
    turn = _uniform(rng, 0.0, 1.0)
    vertices = []
    for corner in range(3):
        c, s = _cos_sin(turn + corner / 3.0 + _uniform(rng, -0.06, 0.06))
        radius = _uniform(rng, 0.75, 1.0)
        vertices.append((radius * c, radius * s))
    return (PolygonPart(vertices=tuple(vertices)),)


def _cross(rng: RandomState) -> Outline:
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    half_width = _uniform(rng, 0.22, 0.34)
    arm = _uniform(rng, 0.7, 1.0)
    return _bar(1.0, half_width, (c, s)), _bar(arm, half_width, (-s, c))


def random_outline(rng: RandomState, category: int, long_side: float) -> Outline:
    """Draw an outline of ``CATEGORIES[category]`` about the origin; ``long_side`` of its box is in px."""
    unit = (_ellipse, _rectangle, _triangle, _cross)[category](rng)
    left, top, right, bottom = outline_extent(unit)
    scale = long_side / max(right - left, bottom - top)
    middle = (-0.5 * scale * (left + right), -0.5 * scale * (top + bottom))
    return move_outline(unit, scale, middle)


def move_outline(outline: Outline, scale: float, centre: Point) -> Outline:
    """Scale an outline about the origin, then move it by ``centre`` px."""
    return tuple(part.placed(scale, centre) for part in outline)


def _clamp(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, 0.0), 1.0)


def _smoothstep(values: Floats) -> Floats:
    t = _clamp(values)
    return t * t * (3.0 - 2.0 * t)


def _value_noise(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    """Noise in [0, 1] for ``x (1, W)``, ``y (H, 1)``: a random node every ``period`` px, smoothly filled."""
    u, v = (x[0] - x[0, 0]) / period, (y[:, 0] - y[0, 0]) / period
    columns, rows = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    grid = rng.random_sample((int(rows[-1]) + 2, int(columns[-1]) + 2))
    down = _smoothstep(v - rows)[:, None]
    across = _smoothstep(u - columns)
    lines = grid[rows] + down * (grid[rows + 1] - grid[rows])
    noise: Floats = lines[:, columns] + across * (lines[:, columns + 1] - lines[:, columns])
    return noise


def _wave(along: Floats) -> Floats:
    """Stripes in [0, 1] of period 1: a triangle wave, steepened."""
    return _clamp(2.5 * np.abs(2.0 * (along - np.floor(along)) - 1.0) - 0.75)


def _stripes(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    return _wave((c / period) * x + ((s / period) * y + _uniform(rng, 0.0, 1.0)))


def _checker(rng: RandomState, x: Floats, y: Floats, period: float) -> Floats:
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    first = _wave((c / period) * x + (s / period) * y)
    second = _wave((c / period) * y - (s / period) * x)
    return 0.5 + 0.5 * (2.0 * first - 1.0) * (2.0 * second - 1.0)


@dataclass(frozen=True, kw_only=True)
class Window:
    """The pixels ``[top, bottom) x [left, right)`` of an image; never empty."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Index of the window in an ``(H, W, ...)`` array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def x(self) -> Floats:
        """``(1, W)`` pixel centres."""
        return np.arange(self.left, self.right, dtype=np.float64)[None, :] + 0.5

    @property
    def y(self) -> Floats:
        """``(H, 1)`` pixel centres."""
        return np.arange(self.top, self.bottom, dtype=np.float64)[:, None] + 0.5


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Something to paint on a window: opacity ``alpha (h, w)`` and ``colour``, ``(h, w, 3)`` or ``(3,)``."""

    window: Window
    alpha: Floats
    colour: Floats


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An object in the scene; ``visible`` ``(H, W)`` shrinks while later layers hide it."""

    category_id: int
    box_xyxy: tuple[float, float, float, float]
    pixels: int
    visible: NDArray[np.bool_]

    def visible_share(self) -> float:
        """Share of the object's pixels inside the image that nothing hides so far."""
        return int(np.count_nonzero(self.visible)) / self.pixels

    def bears(self, window: Window, cover: NDArray[np.bool_]) -> bool:
        """Tell whether enough stays visible if ``cover`` is laid over ``window``."""
        hidden = int(np.count_nonzero(self.visible[window.pixels] & cover))
        return int(np.count_nonzero(self.visible)) - hidden >= MIN_VISIBLE_SHARE * self.pixels


class Scene:
    """An image under construction: ``canvas (H, W, 3)`` in [0, 1] and the objects on it, bottom to top."""

    def __init__(self, canvas: Floats, scale: float) -> None:
        """Start from a background; ``scale`` is the size of a reference pixel."""
        self.canvas = canvas
        self.scale = scale
        self.objects: list[Placed] = []

    @property
    def height(self) -> int:
        """Height in px."""
        return int(self.canvas.shape[0])

    @property
    def width(self) -> int:
        """Width in px."""
        return int(self.canvas.shape[1])

    def window(self, extent: tuple[float, float, float, float], margin: float) -> Window | None:
        """Pixels within ``margin`` px of an xyxy box; ``None`` outside the image."""
        left, top = math.floor(extent[0] - margin), math.floor(extent[1] - margin)
        right, bottom = math.ceil(extent[2] + margin), math.ceil(extent[3] + margin)
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, self.width), min(bottom, self.height)
        if right <= left or bottom <= top:
            return None
        return Window(top=top, bottom=bottom, left=left, right=right)

    def colour_at(self, point: Point) -> Colour:
        """Colour of the pixel nearest to a point."""
        row = min(max(math.floor(point[1]), 0), self.height - 1)
        column = min(max(math.floor(point[0]), 0), self.width - 1)
        red, green, blue = (float(value) for value in self.canvas[row, column])
        return red, green, blue

    def paint(self, layer: Layer) -> bool:
        """Paint a layer unless it would hide too much of an object; tell whether it was painted."""
        cover = layer.alpha > 0.5
        if not all(placed.bears(layer.window, cover) for placed in self.objects):
            return False
        region = self.canvas[layer.window.pixels]
        region += layer.alpha[:, :, None] * (layer.colour - region)
        for placed in self.objects:
            placed.visible[layer.window.pixels] &= ~cover
        return True


def _contrasting(rng: RandomState, under: Colour, contrast: float) -> Colour:
    """Draw a colour that differs by about ``contrast`` or more in one channel, anyhow in the others."""
    lead = _pick(rng, 3)
    # towards the side of the leading channel that has more room, so that the clamp seldom eats the contrast
    up = _uniform(rng, 0.0, 1.0) < 1.5 - 2.0 * under[lead]
    signed = contrast if up else -contrast
    factors = [_uniform(rng, -0.4, 1.4) for _ in under]
    factors[lead] = _uniform(rng, 1.0, 1.6)
    red, green, blue = (
        min(max(value + signed * factor, 0.0), 1.0) for value, factor in zip(under, factors, strict=True)
    )
    return red, green, blue


def _tinted(rng: RandomState, category: int, under: Colour) -> tuple[Colour, float]:
    """Draw a surface's colour, between what lies under it and the tint of its class, and their contrast."""
    share = _uniform(rng, *TINT_SHARE)
    red, green, blue = (
        min(max(share * tint * _uniform(rng, 0.8, 1.2) + (1.0 - share) * value, 0.0), 1.0)
        for tint, value in zip(TINTS[category], under, strict=True)
    )
    return (red, green, blue), 0.5 * share


def _textured(rng: RandomState, scene: Scene, window: Window, base: Colour, contrast: float) -> Floats:
    """Colours ``(h, w, 3)`` of a surface: flat (a quarter), stripes, checker or blotches about ``base``."""
    kind = _pick(rng, 4)
    period = _log_uniform(rng, 3.0, 14.0) * scene.scale
    strength = contrast * _uniform(rng, 0.3, 0.8)
    first: Floats = np.array(base)
    if kind == 3:
        return first
    second: Floats = np.array(_contrasting(rng, base, strength))
    pattern = (_stripes, _checker, _value_noise)[kind](rng, window.x, window.y, period)
    colour: Floats = first + pattern[:, :, None] * (second - first)
    return colour


def _background(rng: RandomState, width: int, height: int, scale: float) -> Floats:
    """A gradient and two scales of value noise about a muted colour, ``(H, W, 3)``."""
    window = Window(top=0, bottom=height, left=0, right=width)
    grey = _uniform(rng, 0.25, 0.75)
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    gradient = (c / width) * window.x + (s / height) * window.y - 0.5 * (c + s)
    coarse = _value_noise(rng, window.x, window.y, _log_uniform(rng, 18.0, 50.0) * scale) - 0.5
    fine = _value_noise(rng, window.x, window.y, _log_uniform(rng, 3.0, 9.0) * scale) - 0.5
    strengths = (_uniform(rng, 0.0, 0.3), _uniform(rng, 0.08, 0.4), _uniform(rng, 0.02, 0.16))
    canvas = np.empty((height, width, 3))
    for channel in range(3):
        a, b, d = (strength * _uniform(rng, 0.5, 1.2) for strength in strengths)
        canvas[:, :, channel] = grey + _uniform(rng, -0.15, 0.15) + a * gradient + b * coarse + d * fine
    return _clamp(canvas)


def _random_point(rng: RandomState, scene: Scene) -> Point:
    return _uniform(rng, 0.0, scene.width), _uniform(rng, 0.0, scene.height)


def _around(scene: Scene, centre: Point, reach: float) -> Window:
    x, y = centre
    window = scene.window((x - reach, y - reach, x + reach, y + reach), 1.0)
    assert window is not None, "a clutter's centre lies inside the image"
    return window


def _faded(rng: RandomState, scene: Scene, window: Window, centre: Point, alpha: Floats) -> Layer:
    contrast = _log_uniform(rng, 0.12, 0.5)
    colour = np.array(_contrasting(rng, scene.colour_at(centre), contrast))
    return Layer(window=window, alpha=alpha * _uniform(rng, 0.6, 1.0), colour=colour)


def _line(rng: RandomState, scene: Scene) -> Layer:
    centre = _random_point(rng, scene)
    half = _log_uniform(rng, 8.0, 60.0) * scene.scale
    thickness = _uniform(rng, 0.35, 1.0) * scene.scale
    outline = move_outline((_bar(half, thickness, _cos_sin(_uniform(rng, 0.0, 1.0))),), 1.0, centre)
    window = scene.window(outline_extent(outline), 2.0)
    assert window is not None, "a clutter's centre lies inside the image"
    blur = _uniform(rng, 0.8, 1.8) * scene.scale
    return _faded(rng, scene, window, centre, edge_alpha(outline_distance(outline, window.x, window.y), blur))


def _arc(rng: RandomState, scene: Scene) -> Layer:
    """A thin piece, at most half, of a circle."""
    centre = _random_point(rng, scene)
    radius = _log_uniform(rng, 5.0, 40.0) * scene.scale
    window = _around(scene, centre, radius + 2.0 * scene.scale)
    dx, dy = window.x - centre[0], window.y - centre[1]
    ring = np.abs(np.sqrt(dx * dx + dy * dy) - radius) - _uniform(rng, 0.3, 0.9) * scene.scale
    c, s = _cos_sin(_uniform(rng, 0.0, 1.0))
    cut = _uniform(rng, 0.0, 0.6) * radius - (c * dx + s * dy)
    return _faded(rng, scene, window, centre, edge_alpha(np.maximum(ring, cut), 1.2 * scene.scale))


def _blob(rng: RandomState, scene: Scene) -> Layer:
    """A ragged smudge: a paraboloid broken up by noise, with no outline of its own."""
    centre = _random_point(rng, scene)
    radius = _log_uniform(rng, 4.0, 16.0) * scene.scale
    window = _around(scene, centre, radius)
    dx, dy = (window.x - centre[0]) / radius, (window.y - centre[1]) / radius
    hill = np.maximum(1.0 - (dx * dx + dy * dy), 0.0)
    noise = _value_noise(rng, window.x, window.y, 0.35 * radius)
    alpha = _smoothstep(hill * (3.6 * noise - 1.0) * _uniform(rng, 0.9, 1.4))
    return _faded(rng, scene, window, centre, alpha)


def _stripe_patch(rng: RandomState, scene: Scene) -> Layer:
    """Stripes that fade out in every direction."""
    centre = _random_point(rng, scene)
    radius = _log_uniform(rng, 10.0, 35.0) * scene.scale
    window = _around(scene, centre, radius)
    dx, dy = (window.x - centre[0]) / radius, (window.y - centre[1]) / radius
    hill = np.maximum(1.0 - (dx * dx + dy * dy), 0.0)
    stripes = _stripes(rng, window.x, window.y, _log_uniform(rng, 3.0, 10.0) * scene.scale)
    return _faded(rng, scene, window, centre, hill * hill * stripes)


def _scatter(rng: RandomState, scene: Scene, weights: Sequence[float], count: int) -> None:
    """Paint clutter: lines, arcs, smudges and patches of stripes in the proportion of ``weights``."""
    for _ in range(count):
        scene.paint((_line, _arc, _blob, _stripe_patch)[_pick_weighted(rng, weights)](rng, scene))


def _random_centre(rng: RandomState, scene: Scene, half_width: float, half_height: float) -> Point:
    """Draw a centre: mostly such that the object lies inside the image, else such that it may be cut."""
    inside = _uniform(rng, 0.0, 1.0) < 0.82
    margin_x = half_width if inside and 2.0 * half_width < scene.width else 0.08 * scene.width
    margin_y = half_height if inside and 2.0 * half_height < scene.height else 0.08 * scene.height
    return _uniform(rng, margin_x, scene.width - margin_x), _uniform(rng, margin_y, scene.height - margin_y)


def _random_size(rng: RandomState, scene: Scene) -> float:
    largest = MAX_OBJECT_SHARE * max(scene.width, scene.height)
    return _log_uniform(rng, MIN_OBJECT_PX * scene.scale, largest)


def _add_object(rng: RandomState, scene: Scene) -> bool:
    """Draw one object and paint it, unless its box is tiny or it hides another; tell whether it was."""
    category = _pick(rng, len(CATEGORIES))
    outline = random_outline(rng, category, _random_size(rng, scene))
    extent = outline_extent(outline)
    centre = _random_centre(rng, scene, extent[2], extent[3])
    outline = move_outline(outline, 1.0, centre)
    box = outline_box(outline, scene.width, scene.height)
    if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
        return False
    layer = _object_layer(rng, scene, category, outline, centre)
    inside = np.zeros((scene.height, scene.width), dtype=np.bool_)
    inside[layer.window.pixels] = layer.alpha > 0.5
    pixels = int(np.count_nonzero(inside))
    if pixels == 0 or not scene.paint(layer):
        return False
    scene.objects.append(
        Placed(category_id=CATEGORIES[category][0], box_xyxy=box, pixels=pixels, visible=inside)
    )
    return True


def _object_layer(rng: RandomState, scene: Scene, category: int, outline: Outline, centre: Point) -> Layer:
    widest = BLUR_PX[1] * scene.scale
    window = scene.window(outline_extent(outline), widest)
    assert window is not None, "an object with a box lies inside the image"
    distance = outline_distance(outline, window.x, window.y)
    depth = -float(distance.min())
    # a thin object keeps an opaque core; no edge is sharper than a pixel can show
    drawn = _uniform(rng, BLUR_PX[0], BLUR_PX[1]) * scene.scale
    blur = max(min(drawn, 1.6 * depth), BLUR_PX[0])
    base, contrast = _tinted(rng, category, scene.colour_at(centre))
    colour = _textured(rng, scene, window, base, contrast)
    return Layer(window=window, alpha=edge_alpha(distance, blur), colour=colour)


def _populate(rng: RandomState, scene: Scene) -> None:
    if _uniform(rng, 0.0, 1.0) < EMPTY_SHARE:
        return
    for _ in range(1 + _pick_weighted(rng, COUNT_WEIGHTS)):
        for _ in range(PLACEMENT_TRIES):
            if _add_object(rng, scene):
                break


def image_id_of(split: str, index: int) -> int:
    """Id, unique across splits, of the image at ``index`` of ``train`` or ``val``.

    Raises:
        ValueError: the split is unknown or the index out of range.
    """
    if not 0 <= index < FIRST_VAL_ID - 1:
        raise ValueError(f"index: expected 0 to {FIRST_VAL_ID - 2}, but got {index}")
    match split:
        case "train":
            return 1 + index
        case "val":
            return FIRST_VAL_ID + index
    raise ValueError(f"split: expected 'train' or 'val', but got {split!r}")


def _image_size(rng: RandomState, long_edge: int) -> tuple[int, int]:
    """Draw ``(width, height)``: square, landscape or portrait."""
    short_edge = 2 * round(long_edge * 5 / 12)
    return ((long_edge, long_edge), (long_edge, short_edge), (short_edge, long_edge))[_pick(rng, 3)]


def render_image(config: ShapesConfig, split: str, index: int) -> tuple[NDArray[np.uint8], list[ShapeObject]]:
    """Render one image, independent of all others.

    Args:
        config: seed and size.
        split: ``train`` or ``val``.
        index: of the image in its split, from 0.

    Returns:
        RGB pixels ``(H, W, 3)`` and the labelled objects, bottom to top.

    Raises:
        ValueError: the split is unknown or the index out of range.
    """
    rng = RandomState([config.seed, image_id_of(split, index)])
    width, height = _image_size(rng, config.long_edge)
    scale = config.long_edge / REFERENCE_LONG_EDGE
    scene = Scene(_background(rng, width, height, scale), scale)
    _scatter(rng, scene, (0.35, 0.25, 0.25, 0.15), 2 + _pick(rng, 6))
    _populate(rng, scene)
    _scatter(rng, scene, (0.45, 0.25, 0.3, 0.0), _pick(rng, 4))
    return _expose(rng, scene.canvas), [_labelled(placed) for placed in scene.objects]


def _expose(rng: RandomState, canvas: Floats) -> NDArray[np.uint8]:
    """Add sensor noise and round to 8 bits."""
    noise = _uniform(rng, 0.0, 0.06) * (rng.random_sample(canvas.shape) - 0.5)
    return np.floor(_clamp(canvas + noise) * 255.0 + 0.5).astype(np.uint8)


def _labelled(placed: Placed) -> ShapeObject:
    return ShapeObject(
        category_id=placed.category_id, box_xyxy=placed.box_xyxy, visible_share=placed.visible_share()
    )


def _annotation(image_id: int, number: int, shape: ShapeObject) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(value, 2) for value in shape.box_xyxy)
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": image_id * IDS_PER_IMAGE + number,
        "image_id": image_id,
        "category_id": shape.category_id,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 4),
        "iscrowd": 0,
        "segmentation": [],
    }


def _write_split(config: ShapesConfig, root: Path, split: str, indices: Iterable[int]) -> None:
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in indices:
        image_id = image_id_of(split, index)
        pixels, shapes = render_image(config, split, index)
        # BMP, not PNG: with compress_level=0 too, where stored blocks are cut differs between zlib builds and
        # buffer sizes (seen above 64 KiB: Pillow with zlib-ng cut every 33 kB, Python's zlib every 65 kB)
        file_name = f"{image_id:012d}.bmp"
        Image.fromarray(pixels).save(folder / file_name)
        height, width, _ = pixels.shape
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        annotations.extend(_annotation(image_id, number, shape) for number, shape in enumerate(shapes))
    _write_annotations(root / "annotations" / f"instances_{split}.json", images, annotations)


def _write_annotations(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> None:
    document = {
        "info": {"description": "shapes: a procedural detection dataset", "version": "1"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": category_id, "name": name, "supercategory": "shape"} for category_id, name in CATEGORIES
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # bytes, because text mode would write other line ends on Windows
    path.write_bytes((json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode())


def write_dataset(
    config: ShapesConfig, root: Path, progress: Callable[[Iterable[int]], Iterable[int]]
) -> None:
    """Render both splits into ``root`` in COCO layout.

    Writes ``annotations/instances_{train,val}.json``, after its images, and ``{train,val}/<image id>.bmp``.

    Args:
        config: what to render.
        root: folder to write into; made if missing.
        progress: wraps the indices of a split, as ``tqdm.tqdm`` does.
    """
    for split, count in (("train", config.train_images), ("val", config.val_images)):
        _write_split(config, root, split, progress(range(count)))
