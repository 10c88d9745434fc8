"""Validation images side by side: ground truth, teacher and students."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from torch import Tensor
from torchvision.ops import box_convert, box_iou

from pipeline.core.paths import RunPaths
from pipeline.evaluation.detect import Result
from pipeline.report.drawing import PALETTE, Line, class_color, draw_box, draw_labels, draw_pixels
from pipeline.report.figures import draw_picture
from pipeline.report.runs import result_of
from pipeline.report.shown_views import spread
from pipeline.views.images import read_image
from pipeline.views.manifest import Annotation, ImageRecord, Manifest

SHOWN_IMAGES = 5

FOUND_IOU = 0.5
"""An object is found by a detection of its class from this IoU on."""

GALLERY_PX, GAP_PX = 1082.0, 16.0
"""Width of a row of images and space between its pictures, as shown."""


class ShownImage(NamedTuple):
    """One validation image, and the detections that are drawn."""

    pixels: Tensor
    """``ByteTensor[3, H, W]``."""
    objects: Sequence[Annotation]
    detections: Mapping[str, Sequence[Result]]
    """By name of the detector as many as there are objects, the best first."""


def show_images(manifest: Manifest, folder: RunPaths, names: Sequence[str]) -> list[ShownImage]:
    """Images of a split, with the detections of detectors; a ``ReportError`` if their file is bad."""
    results: dict[str, list[Result]] = {}
    for name in names:
        with result_of(folder.evaluation(name) / "detections.json") as text:
            results[name] = sorted(json.loads(text), key=lambda row: -float(row["score"]))
    images = []
    for record in choose_images(manifest):
        objects = objects_of(record)
        best = {
            name: [row for row in rows if row["image_id"] == record.image_id][: len(objects)]
            for name, rows in results.items()
        }
        pixels = read_image(*manifest.image_file(record))
        images.append(ShownImage(pixels=pixels, objects=objects, detections=best))
    return images


def choose_images(manifest: Manifest) -> list[ImageRecord]:
    """Evenly spread images of three to eight objects; if there is none, evenly spread images."""
    several = [record for record in manifest.images if 3 <= len(objects_of(record)) <= 8]
    return spread(several or list(manifest.images), SHOWN_IMAGES)


def objects_of(record: ImageRecord) -> list[Annotation]:
    """Annotations of single objects."""
    return [annotation for annotation in record.annotations if not annotation.iscrowd]


def class_lines(manifest: Manifest) -> dict[int, Line]:
    """Name and color of every class by its category's id; colors repeat if there are too many classes."""
    return {c.category_id: Line(c.name, class_color(number)) for number, c in enumerate(manifest.categories)}


def image_picture(image: ShownImage, detector: str | None, manifest: Manifest, label: str) -> Markup:
    """The ground truth, or the detections of a detector over dashed true boxes.

    A detection's label names its class where colors repeat.
    """
    classes = class_lines(manifest)
    if detector is None:
        drawn = [(a.category_id, a.box_xywh, classes[a.category_id].name) for a in image.objects]
    else:
        text = "{1:.2f}" if len(classes) <= len(PALETTE) else "{0} {1:.2f}"
        rows = [(row["category_id"], row["bbox"], row["score"]) for row in image.detections[detector]]
        drawn = [(key, box, text.format(classes[key].name, score)) for key, box, score in rows]
    boxes, chosen = (
        _to_xyxy([box for _, box, _ in drawn]).numpy(),
        [classes[key].color for key, _, _ in drawn],
    )

    def plot(axes: Axes, scale: float) -> None:
        draw_pixels(axes, image.pixels)
        if detector is not None:
            for box in _to_xyxy([annotation.box_xywh for annotation in image.objects]).tolist():
                draw_box(axes, box, "white", 1.2, "--")
        for box, color in zip(boxes.tolist(), chosen, strict=True):
            draw_box(axes, box, color)
        draw_labels(axes, boxes, chosen, [text for _, _, text in drawn], scale)

    height, width = image.pixels.shape[1:]
    shown = (GALLERY_PX + GAP_PX) / (len(image.detections) + 1) - GAP_PX
    return draw_picture((height, width), shown, label, plot)


def _to_xyxy(boxes_xywh: Sequence[Sequence[float]]) -> Tensor:
    return box_convert(torch.tensor(boxes_xywh).reshape(-1, 4), "xywh", "xyxy")


def describe(image: ShownImage, name: str) -> str:
    """How many objects the drawn detections find."""
    results, objects = image.detections[name], image.objects
    boxes, true = ([row["bbox"] for row in results], [annotation.box_xywh for annotation in objects])
    overlaps = box_iou(_to_xyxy(boxes), _to_xyxy(true)).numpy()
    same = np.equal.outer([row["category_id"] for row in results], [a.category_id for a in objects])
    found = np.count_nonzero((same & (overlaps >= FOUND_IOU)).any(axis=0))
    return f"{found} of {len(objects)} found"
