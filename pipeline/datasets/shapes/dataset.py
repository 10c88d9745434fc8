"""``shapes``: a procedural detection dataset in COCO layout whose difficulty is localization.

Rotated, textured objects of four classes, edges 0.6 to 5 px wide, clear to faint, of very different sizes,
partly hidden by each other and by unlabelled clutter.

The same bytes on every machine: random numbers come from ``RandomState.random_sample`` alone (its stream is
frozen by NEP 19; ``randint`` depends on the platform's long), arrays see only operations that IEEE 754 rounds
exactly, one per call so that no compiler fuses two, and scalar ``math`` results are rounded before use.
"""

import json
from dataclasses import replace
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
from pipeline.datasets.shapes.draws import Point, clamp, log_uniform, pick, pick_weighted, uniform
from pipeline.datasets.shapes.outlines import (
    Outline,
    edge_alpha,
    move_outline,
    outline_box,
    outline_distance,
    outline_extent,
    random_outline,
)
from pipeline.datasets.shapes.scene import Layer, Scene, ShapeObject, scatter
from pipeline.datasets.shapes.surfaces import background, textured, tinted

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


def _random_center(rng: RandomState, scene: Scene, half_width: float, half_height: float) -> Point:
    """Draw a center: mostly such that the object lies inside the image, else such that it may be cut."""
    inside = uniform(rng, 0.0, 1.0) < 0.82
    margin_x = half_width if inside and 2.0 * half_width < scene.width else 0.08 * scene.width
    margin_y = half_height if inside and 2.0 * half_height < scene.height else 0.08 * scene.height
    return uniform(rng, margin_x, scene.width - margin_x), uniform(rng, margin_y, scene.height - margin_y)


def _add_object(rng: RandomState, scene: Scene) -> bool:
    """Draw one object and paint it, unless its box is tiny or it hides another; tell whether it was."""
    category = pick(rng, len(CATEGORIES))
    largest = MAX_OBJECT_SHARE * max(scene.width, scene.height)
    outline = random_outline(rng, category, log_uniform(rng, MIN_OBJECT_PX * scene.scale, largest))
    extent = outline_extent(outline)
    center = _random_center(rng, scene, extent[2], extent[3])
    outline = move_outline(outline, 1.0, center)
    box = outline_box(outline, (0.0, scene.width), (0.0, scene.height))
    if box is None or min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_PX:
        return False
    layer = _object_layer(rng, scene, category, outline, center)
    inside = np.zeros(scene.canvas.shape[:2], dtype=np.bool_)
    inside[layer.window.pixels] = layer.alpha > 0.5
    pixels = int(np.count_nonzero(inside))
    if pixels == 0 or not scene.paint(layer):
        return False
    category_id, _ = CATEGORIES[category]
    scene.objects.append(ShapeObject(category_id=category_id, box_xyxy=box, pixels=pixels, visible=inside))
    return True


def _object_layer(rng: RandomState, scene: Scene, category: int, outline: Outline, center: Point) -> Layer:
    widest = BLUR_PX[1] * scene.scale
    window = scene.window(outline_extent(outline), widest)
    distance = outline_distance(outline, window.x, window.y)
    depth = -float(distance.min())
    # a thin object keeps an opaque core; no edge is sharper than a pixel can show
    drawn = uniform(rng, BLUR_PX[0], BLUR_PX[1]) * scene.scale
    blur = max(min(drawn, 1.6 * depth), BLUR_PX[0])
    base, contrast = tinted(rng, category, scene.color_at(center))
    color = textured(rng, scene.scale, window, base, contrast)
    return Layer(window=window, alpha=edge_alpha(distance, blur), color=color)


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
    """An image and its objects as somebody annotates them: in ``train`` with imprecise boxes.

    Every edge moves by its own share of the box's side and stays inside the image.
    """
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
        # BMP, not PNG: with compress_level=0 too, where stored blocks are cut differs between zlib builds and
        # buffer sizes (seen above 64 KiB: Pillow with zlib-ng cut every 33 kB, Python's zlib every 65 kB)
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
    # bytes, because text mode would write other line ends on Windows
    with atomic_path(annotations) as partial:
        partial.write_bytes((json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n").encode())
