"""A dataset to measure on without one: images as large as COCO's, with as many boxes, as large."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.views.classes import Category
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest

LONG_EDGE_PX = 640
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427))
"""``(height, width)`` px: the most frequent ones of COCO's train2017, in turn."""
BOXES_PER_IMAGE = 7.27
"""Mean of train2017's images with boxes."""
LOG_SIDE, LOG_SIDE_DEVIATION, LOG_ASPECT_DEVIATION, MIN_SIDE_PX = 3.73, 1.18, 0.5, 2.0
"""Of the square root of a box's area, px: 41 % lie below 32, and 76 % below 96."""
GRAIN = 12.0
"""Of gray pixels, levels: a file takes about 150 KB, as COCO's do."""
JPEG_QUALITY = 90


def draw_dataset(folder: Path, images: int, categories: int, long_edge: int = LONG_EDGE_PX) -> Manifest:
    """Draw ``images`` JPEG files, always the same, into ``folder/images``; boxes scale with the long edge."""
    (folder / "images").mkdir(parents=True)
    scale = long_edge / LONG_EDGE_PX
    records = [_draw_image(folder / "images", number, categories, scale) for number in range(images)]
    return Manifest(
        root=str(folder),
        folder="images",
        categories=tuple(Category(category_id=i + 1, name=f"category {i + 1}") for i in range(categories)),
        images=ImageTable.of(records),
    )


def _draw_image(folder: Path, number: int, categories: int, scale: float) -> ImageRecord:
    rng = np.random.default_rng([0, number])
    height, width = (round(side * scale) for side in SIZES[number % len(SIZES)])
    name = f"{number:012}.jpg"
    pixels = rng.normal(128, GRAIN, (height, width, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name, quality=JPEG_QUALITY)
    # One and more, with an exponential tail.
    count = 1 + int(rng.exponential(BOXES_PER_IMAGE - 0.5))
    side = scale * rng.lognormal(LOG_SIDE, LOG_SIDE_DEVIATION, count)
    aspect = rng.lognormal(0, LOG_ASPECT_DEVIATION, count)
    w, h = np.clip(side * aspect, MIN_SIDE_PX, width), np.clip(side / aspect, MIN_SIDE_PX, height)
    boxes = np.stack([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h], axis=1).tolist()
    classes = rng.integers(1, categories + 1, count).tolist()
    annotations = tuple(
        Annotation(0, category, x, y, w, h, area=w * h, iscrowd=False)
        for category, (x, y, w, h) in zip(classes, boxes, strict=True)
    )
    return ImageRecord(image_id=number, file_name=name, height=height, width=width, annotations=annotations)
