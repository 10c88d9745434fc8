"""``shapes``: a procedural detection dataset in COCO layout whose difficulty is localization.

Rotated, textured objects of four classes and very different sizes, clear to faint, partly hidden by clutter.
The same bytes on every machine: random numbers come from ``RandomState.random_sample`` alone (frozen by NEP
19), arrays see only operations that IEEE 754 rounds exactly, one per call so that no compiler fuses two, and
scalar ``math`` results are rounded before use.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.files import atomic_path
from pipeline.core.paths import Split
from pipeline.core.progress import show_progress
from pipeline.datasets.config import FIRST_VAL_ID, ShapesConfig
from pipeline.datasets.shapes.draws import (
    Box,
    Color,
    Floats,
    Point,
    Range,
    Window,
    background,
    clamp,
    contrasting,
    cos_sin,
    log_uniform,
    pick,
    pick_weighted,
    smoothstep,
    stripes,
    textured,
    tinted,
    uniform,
    value_noise,
)
from pipeline.datasets.shapes.outlines import (
    bar,
    edge_alpha,
    move_outline,
    outline_box,
    outline_distance,
    outline_extent,
    random_outline,
)

CATEGORIES: tuple[tuple[int, str], ...] = ((1, "ellipse"), (3, "rectangle"), (4, "triangle"), (7, "cross"))

# All pixel sizes below are for a long edge of 96 and scale with it.
REFERENCE_LONG_EDGE = 96
MIN_OBJECT_PX = 14.0
MAX_OBJECT_SHARE = 0.75  # of the long edge
BLUR_PX = (0.6, 6.0)
MIN_BOX_PX = 4.0  # of a clipped box; does not scale, it is what a detector can still resolve
EMPTY_SHARE = 0.04
COUNT_WEIGHTS = (0.16, 0.27, 0.25, 0.16, 0.10, 0.06)  # of 1, 2, ... objects
PLACEMENT_TRIES = 8
ANNOTATION_STREAM = 1  # third seed of the numbers that annotations draw; pixels have two
IDS_PER_IMAGE = 10  # annotation ids reserved for one image; more than the largest number of objects
MIN_VISIBLE_SHARE = 0.45  # of an object's pixels inside the image, under later layers

Layer = tuple[Window, Floats, Floats]
"""Something to paint: where, its opacity ``(h, w)``, and its color, ``(h, w, 3)`` or ``(3,)``."""


@dataclass(frozen=True, kw_only=True)
class ShapeObject:
    """One labelled object of an image."""

    category_id: int
    box_xyxy: Box
    """Tight box, px, of that part of the un-occluded outline that lies inside the image."""
    pixels: int
    visible: NDArray[np.bool_] = field(compare=False, repr=False)
    """``(H, W)``; shrinks while later layers hide the object."""


class Scene:
    """An image under construction: ``canvas (H, W, 3)`` in [0, 1], a reference pixel's ``scale``, objects."""

    def __init__(self, canvas: Floats, scale: float) -> None:
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
        window, alpha, color = layer
        cover = alpha > 0.5
        for placed in self.objects:
            hidden = np.count_nonzero(placed.visible[window.pixels] & cover)
            if np.count_nonzero(placed.visible) - hidden < MIN_VISIBLE_SHARE * placed.pixels:
                return False
        region = self.canvas[window.pixels]
        region += alpha[:, :, None] * (color - region)
        for placed in self.objects:
            placed.visible[window.pixels] &= ~cover
        return True


def _random_point(rng: RandomState, scene: Scene) -> Point:
    return uniform(rng, 0.0, scene.width), uniform(rng, 0.0, scene.height)


def _around(scene: Scene, center: Point, reach: float) -> Window:
    x, y = center
    return scene.window((x - reach, y - reach, x + reach, y + reach), 1.0)


def _faded(rng: RandomState, scene: Scene, window: Window, center: Point, alpha: Floats) -> Layer:
    contrast = log_uniform(rng, 0.12, 0.5)
    color = np.array(contrasting(rng, scene.color_at(center), contrast))
    return window, alpha * uniform(rng, 0.6, 1.0), color


def _line(rng: RandomState, scene: Scene) -> Layer:
    center = _random_point(rng, scene)
    half = log_uniform(rng, 8.0, 60.0) * scene.scale
    thickness = uniform(rng, 0.35, 1.0) * scene.scale
    outline = move_outline((bar(half, thickness, cos_sin(uniform(rng, 0.0, 1.0))),), 1.0, center)
    window = scene.window(outline_extent(outline), 2.0)
    blur = uniform(rng, 0.8, 1.8) * scene.scale
    return _faded(rng, scene, window, center, edge_alpha(outline_distance(outline, window.x, window.y), blur))


def _arc(rng: RandomState, scene: Scene) -> Layer:
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


def _add_object(rng: RandomState, scene: Scene) -> bool:
    """Draw one object and paint it, unless its box is tiny or it hides another; tell whether it was."""
    category = pick(rng, len(CATEGORIES))
    largest = MAX_OBJECT_SHARE * max(scene.width, scene.height)
    outline = random_outline(rng, category, log_uniform(rng, MIN_OBJECT_PX * scene.scale, largest))
    extent = outline_extent(outline)
    # mostly such that the object lies inside the image, else such that it may be cut
    inside_image = uniform(rng, 0.0, 1.0) < 0.82
    x_margin, y_margin = (
        half if inside_image and 2.0 * half < side else 0.08 * side
        for half, side in ((extent[2], scene.width), (extent[3], scene.height))
    )
    center = uniform(rng, x_margin, scene.width - x_margin), uniform(rng, y_margin, scene.height - y_margin)
    outline = move_outline(outline, 1.0, center)
    box = outline_box(outline, (0.0, scene.width), (0.0, scene.height))
    if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
        return False
    window = scene.window(outline_extent(outline), BLUR_PX[1] * scene.scale)
    distance = outline_distance(outline, window.x, window.y)
    # a thin object keeps an opaque core; no edge is sharper than a pixel can show
    drawn = uniform(rng, BLUR_PX[0], BLUR_PX[1]) * scene.scale
    blur = max(min(drawn, -1.6 * float(distance.min())), BLUR_PX[0])
    base, contrast = tinted(rng, category, scene.color_at(center))
    color = textured(rng, scene.scale, window, base, contrast)
    alpha = edge_alpha(distance, blur)
    inside = np.zeros(scene.canvas.shape[:2], dtype=np.bool_)
    inside[window.pixels] = alpha > 0.5
    pixels = int(np.count_nonzero(inside))
    if pixels == 0 or not scene.paint((window, alpha, color)):
        return False
    category_id, _ = CATEGORIES[category]
    scene.objects.append(ShapeObject(category_id=category_id, box_xyxy=box, pixels=pixels, visible=inside))
    return True


def image_id_of(split: Split, index: int) -> int:
    """Id, unique across splits, of an image of ``train`` or ``val``."""
    return index + (1 if split == "train" else FIRST_VAL_ID)


def render_image(
    config: ShapesConfig, split: Split, index: int
) -> tuple[NDArray[np.uint8], list[ShapeObject]]:
    """RGB pixels ``(H, W, 3)`` and the objects, bottom to top."""
    rng = RandomState([config.seed, image_id_of(split, index)])
    long_edge, short_edge = config.long_edge, 2 * round(config.long_edge * 5 / 12)
    # Square, landscape or portrait.
    sizes = ((long_edge, long_edge), (long_edge, short_edge), (short_edge, long_edge))
    width, height = sizes[pick(rng, 3)]
    scale = config.long_edge / REFERENCE_LONG_EDGE
    scene = Scene(background(rng, width, height, scale), scale)
    scatter(rng, scene, (0.35, 0.25, 0.25, 0.15), 2 + pick(rng, 6))
    if uniform(rng, 0.0, 1.0) >= EMPTY_SHARE:
        for _ in range(1 + pick_weighted(rng, COUNT_WEIGHTS)):
            for _ in range(PLACEMENT_TRIES):
                if _add_object(rng, scene):
                    break
    scatter(rng, scene, (0.45, 0.25, 0.3, 0.0), pick(rng, 4))
    noise = uniform(rng, 0.0, 0.06) * (rng.random_sample(scene.canvas.shape) - 0.5)
    return np.floor(clamp(scene.canvas + noise) * 255.0 + 0.5).astype(np.uint8), scene.objects


def annotate(config: ShapesConfig, split: Split, index: int) -> tuple[NDArray[np.uint8], list[ShapeObject]]:
    """An image and its objects as annotated: in ``train`` an edge of a box is off by a share of its side."""
    pixels, shapes = render_image(config, split, index)
    if split != "train":
        return pixels, shapes
    rng = RandomState([config.seed, image_id_of(split, index), ANNOTATION_STREAM])
    height, width, _ = pixels.shape
    noise, annotated = config.annotation_noise, []
    for shape in shapes:
        x1, y1, x2, y2 = shape.box_xyxy
        reach = (noise * (x2 - x1), noise * (y2 - y1)) * 2
        left, top, right, bottom = (uniform(rng, -limit, limit) for limit in reach)
        corners = max(x1 + left, 0.0), max(y1 + top, 0.0), min(x2 + right, width), min(y2 + bottom, height)
        annotated.append(replace(shape, box_xyxy=corners))
    return pixels, annotated


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


def write_split(config: ShapesConfig, split: Split, *, images: Path, annotations: Path) -> None:
    """Render ``train`` or ``val`` in COCO layout: ``<image id>.bmp`` in ``images``, then ``annotations``."""
    images.mkdir(parents=True, exist_ok=True)
    image_rows: list[dict[str, Any]] = []
    annotation_rows: list[dict[str, Any]] = []
    count = config.train_images if split == "train" else config.val_images
    for index in show_progress(range(count), count, f"render {split}"):
        image_id = image_id_of(split, index)
        pixels, shapes = annotate(config, split, index)
        # BMP, not PNG: where blocks are cut differs between zlib builds, with compress_level=0, too
        file_name = f"{image_id:012d}.bmp"
        with atomic_path(images / file_name) as partial:
            Image.fromarray(pixels).save(partial, format="BMP")
        height, width, _ = pixels.shape
        image_rows.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        annotation_rows.extend(_annotation(image_id, number, shape) for number, shape in enumerate(shapes))
    document = {
        "info": {"description": "shapes: a procedural detection dataset", "version": "1"},
        "licenses": [],
        "images": image_rows,
        "annotations": annotation_rows,
        "categories": [{"id": number, "name": name, "supercategory": "shape"} for number, name in CATEGORIES],
    }
    with atomic_path(annotations) as partial:
        partial.write_bytes((json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode())
