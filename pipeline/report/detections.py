"""Validation images side by side: ground truth, teacher and students."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from pipeline.core.paths import RunPaths
from pipeline.report.drawing import class_color, draw_box, draw_labels, draw_pixels
from pipeline.report.figures import draw_picture
from pipeline.report.runs import result_of
from pipeline.report.shown_views import spread
from pipeline.views.images import read_image
from pipeline.views.manifest import Manifest

TRUE = "ground truth"
SHOWN_IMAGES = 5

FOUND_IOU = 0.5
"""An object is found by a detection of its class from this IoU on."""

GALLERY_PX, GAP_PX = 1082.0, 16.0
"""Width of a row of images and space between its pictures, as shown."""


class ShownImage(NamedTuple):
    """One validation image."""

    pixels: Tensor
    """``ByteTensor[3, H, W]``."""
    drawn: Mapping[str, Sequence[Mapping[str, Any]]]
    """``category_id``, ``bbox`` (x, y, w, h px) and ``score`` of as many detections as there are objects, the
    best first, by name of the detector, and of the objects, without score, by :data:`TRUE`."""


def show_images(manifest: Manifest, folder: RunPaths, names: Sequence[str]) -> list[ShownImage]:
    """Evenly spread images of three to eight objects, if there is one, with the detections of detectors.

    A ``ReportError`` names a file of detections that is bad.
    """
    results = {}
    for name in names:
        with result_of(folder.evaluation(name) / "detections.json") as text:
            results[name] = sorted(json.loads(text), key=lambda row: -float(row["score"]))
    objects = {
        record.image_id: [
            {"category_id": a.category_id, "bbox": a.box_xywh} for a in record.annotations if not a.iscrowd
        ]
        for record in manifest.images
    }
    several = [record for record in manifest.images if 3 <= len(objects[record.image_id]) <= 8]
    images = []
    for record in spread(several or list(manifest.images), SHOWN_IMAGES):
        drawn = {TRUE: objects[record.image_id]}
        for name, rows in results.items():
            drawn[name] = [row for row in rows if row["image_id"] == record.image_id][: len(drawn[TRUE])]
        images.append(ShownImage(read_image(*manifest.image_file(record)), drawn))
    return images


def image_picture(image: ShownImage, name: str, manifest: Manifest, label: str) -> Markup:
    """The detections of a detector over dashed true boxes, or these alone."""
    rows, classes = image.drawn[name], [category.category_id for category in manifest.categories]
    numbers = [classes.index(row["category_id"]) for row in rows]
    colors, boxes = [class_color(number) for number in numbers], _boxes_xyxy(rows)
    texts = [manifest.categories[number].name for number in numbers]
    if name != TRUE:
        texts = [f"{text} {row['score']:.2f}" for text, row in zip(texts, rows, strict=True)]

    def plot(axes: Axes, scale: float) -> None:
        draw_pixels(axes, image.pixels)
        for box in _boxes_xyxy(image.drawn[TRUE]).tolist():
            draw_box(axes, box, "white", 1.2, "--")
        for box, color in zip(boxes.tolist(), colors, strict=True):
            draw_box(axes, box, color)
        draw_labels(axes, boxes.numpy(), colors, texts, scale)

    height, width = image.pixels.shape[1:]
    return draw_picture((height, width), (GALLERY_PX + GAP_PX) / len(image.drawn) - GAP_PX, label, plot)


def _boxes_xyxy(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    return box_convert(torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4), "xywh", "xyxy")


def describe(image: ShownImage, name: str) -> str:
    """How many objects the drawn detections find."""
    rows, objects = image.drawn[name], image.drawn[TRUE]
    near = box_iou(_boxes_xyxy(rows), _boxes_xyxy(objects)).numpy() >= FOUND_IOU
    same = np.equal.outer(*([row["category_id"] for row in each] for each in (rows, objects)))
    return f"{np.count_nonzero((same & near).any(axis=0))} of {len(objects)} found"
