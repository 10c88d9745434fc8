"""Outlines of the objects: signed distances to draw them by, and tight boxes.

A part is convex, x to the right and y down, px. It gives an approximate signed ``distance`` (negative
inside; ``x`` and ``y`` broadcast), its ``x_range`` within a band of y (``None`` where they do not meet),
itself with x and y swapped, and itself scaled about the origin, then moved.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.random import RandomState

from pipeline.datasets.shapes.draws import Box, Floats, Point, Range, cos_sin, smoothstep, uniform


@dataclass(frozen=True, kw_only=True)
class EllipsePart:
    """The ellipse ``d^T M^-1 d <= 1``, ``d = (x, y) - center``, ``M = [[xx, xy], [xy, yy]]`` in px^2."""

    center: Point
    xx: float
    yy: float
    xy: float

    def distance(self, x: Floats, y: Floats) -> Floats:
        """First-order distance ``(f - 1) / |grad f|`` with ``f = sqrt(d^T M^-1 d)``."""
        det = self.xx * self.yy - self.xy * self.xy
        dx, dy = x - self.center[0], y - self.center[1]
        mx = (self.yy / det) * dx - (self.xy / det) * dy
        my = (self.xx / det) * dy - (self.xy / det) * dx
        f = np.sqrt(np.maximum(dx * mx + dy * my, 0.0))
        # |grad f| = |M^-1 d| / f; the small number only serves the center itself, where both vanish
        return (f - 1.0) * ((f + 1e-9) / (np.sqrt(mx * mx + my * my) + 1e-9))

    def x_range(self, y_band: Range) -> Range | None:
        low, high = y_band[0] - self.center[1], y_band[1] - self.center[1]
        top = math.sqrt(self.yy)
        if low >= top or high <= -top:
            return None
        dy_right = self.xy / math.sqrt(self.xx)
        right = self._half_chord(min(max(dy_right, low), high))[1]
        left = self._half_chord(min(max(-dy_right, low), high))[0]
        return self.center[0] + left, self.center[0] + right

    def _half_chord(self, dy: float) -> Range:
        middle = self.xy / self.yy * dy
        squared = (self.xx - self.xy * self.xy / self.yy) * (1.0 - dy * dy / self.yy)
        half = math.sqrt(max(squared, 0.0))
        return middle - half, middle + half

    def transposed(self) -> "EllipsePart":
        return EllipsePart(center=self.center[::-1], xx=self.yy, yy=self.xx, xy=self.xy)

    def placed(self, scale: float, center: Point) -> "EllipsePart":
        area = scale * scale
        return EllipsePart(
            center=_place(self.center, scale, center), xx=self.xx * area, yy=self.yy * area, xy=self.xy * area
        )


@dataclass(frozen=True, kw_only=True)
class PolygonPart:
    """A convex polygon; its vertices turn from +x towards +y, so ``(dy, -dx)`` of an edge points outwards."""

    vertices: tuple[Point, ...]

    def _edges(self) -> Iterable[tuple[Point, Point]]:
        return zip(self.vertices, self.vertices[1:] + self.vertices[:1], strict=True)

    def distance(self, x: Floats, y: Floats) -> Floats:
        """Largest distance to the edges' lines: mitred corners, so that blur does not shrink the outline."""
        planes: list[Floats] = []
        for (x1, y1), (x2, y2) in self._edges():
            dx, dy = x2 - x1, y2 - y1
            length = math.sqrt(dx * dx + dy * dy)
            planes.append((dy / length) * (x - x1) - (dx / length) * (y - y1))
        return reduce(np.maximum, planes)

    def x_range(self, y_band: Range) -> Range | None:
        """Extremes lie at vertices inside the band or where an edge crosses one of its limits."""
        candidates = [x for x, y in self.vertices if y_band[0] <= y <= y_band[1]]
        for (x1, y1), (x2, y2) in self._edges():
            for limit in y_band:
                if min(y1, y2) < limit < max(y1, y2):
                    candidates.append(x1 + (limit - y1) / (y2 - y1) * (x2 - x1))
        return (min(candidates), max(candidates)) if candidates else None

    def transposed(self) -> "PolygonPart":
        """Reversed, so that the edges' normals still point outwards."""
        return PolygonPart(vertices=tuple((y, x) for x, y in reversed(self.vertices)))

    def placed(self, scale: float, center: Point) -> "PolygonPart":
        return PolygonPart(vertices=tuple(_place(vertex, scale, center) for vertex in self.vertices))


def _place(point: Point, scale: float, center: Point) -> Point:
    return point[0] * scale + center[0], point[1] * scale + center[1]


Outline = tuple[EllipsePart | PolygonPart, ...]
"""The union of its parts."""


def outline_distance(outline: Outline, x: Floats, y: Floats) -> Floats:
    """Signed distance-like field of the union of the parts, in px, negative inside."""
    return reduce(np.minimum, [part.distance(x, y) for part in outline])


def edge_alpha(distance: Floats, blur: float) -> Floats:
    """Opacity ``smoothstep(0.5 - distance / blur)``: 0.5 on the outline; ``blur`` is the edge's width, px."""
    return smoothstep(0.5 - distance / blur)


def outline_box(outline: Outline, across: Range, down: Range) -> Box | None:
    """Tight xyxy box of what of the outline is at ``across`` in x and ``down`` in y, if anything is."""
    xs = [_overlap(part.x_range(down), across) for part in outline]
    ys = [_overlap(part.transposed().x_range(across), down) for part in outline]
    boxes = [(x[0], y[0], x[1], y[1]) for x, y in zip(xs, ys, strict=True) if x and y]
    if not boxes:
        return None
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _overlap(span: Range | None, limits: Range) -> Range | None:
    if span is None or span[0] >= limits[1] or span[1] <= limits[0]:
        return None
    return max(span[0], limits[0]), min(span[1], limits[1])


def outline_extent(outline: Outline) -> Box:
    """Tight xyxy box of the whole outline, wherever it lies."""
    box = outline_box(outline, (-math.inf, math.inf), (-math.inf, math.inf))
    assert box is not None
    return box


def bar(half_long: float, half_short: float, direction: Point) -> PolygonPart:
    c, s = direction
    corners = ((1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0))
    spans = ((u * half_long, v * half_short) for u, v in corners)
    return PolygonPart(vertices=tuple((u * c - v * s, u * s + v * c) for u, v in spans))


def _ellipse(rng: RandomState) -> Outline:
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    short = uniform(rng, 0.42, 1.0)
    square = short * short
    return (
        EllipsePart(
            center=(0.0, 0.0), xx=c * c + square * s * s, yy=s * s + square * c * c, xy=(1.0 - square) * c * s
        ),
    )


def _rectangle(rng: RandomState) -> Outline:
    direction = cos_sin(uniform(rng, 0.0, 1.0))
    return (bar(1.0, uniform(rng, 0.38, 1.0), direction),)


def _triangle(rng: RandomState) -> Outline:
    turn = uniform(rng, 0.0, 1.0)
    vertices = []
    for corner in range(3):
        c, s = cos_sin(turn + corner / 3.0 + uniform(rng, -0.06, 0.06))
        radius = uniform(rng, 0.75, 1.0)
        vertices.append((radius * c, radius * s))
    return (PolygonPart(vertices=tuple(vertices)),)


def _cross(rng: RandomState) -> Outline:
    c, s = cos_sin(uniform(rng, 0.0, 1.0))
    half_width = uniform(rng, 0.22, 0.34)
    arm = uniform(rng, 0.7, 1.0)
    return bar(1.0, half_width, (c, s)), bar(arm, half_width, (-s, c))


def random_outline(rng: RandomState, category: int, long_side: float) -> Outline:
    """Draw an outline of ``CATEGORIES[category]`` about the origin; ``long_side`` of its box is in px."""
    unit = (_ellipse, _rectangle, _triangle, _cross)[category](rng)
    left, top, right, bottom = outline_extent(unit)
    scale = long_side / max(right - left, bottom - top)
    middle = (-0.5 * scale * (left + right), -0.5 * scale * (top + bottom))
    return move_outline(unit, scale, middle)


def move_outline(outline: Outline, scale: float, center: Point) -> Outline:
    """Scale an outline about the origin, then move it by ``center`` px."""
    return tuple(part.placed(scale, center) for part in outline)
