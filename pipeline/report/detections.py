"""Validation images side by side: ground truth, teacher and students."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from pipeline.evaluation.detect import Result, read_results
from pipeline.report.drawing import class_color, draw_box, draw_labels, draw_pixels
from pipeline.report.shown_views import spread
from pipeline.report.style import PALETTE
from pipeline.views.box_ops import box_iou
from pipeline.views.image_table import Annotation, ImageRecord
from pipeline.views.images import read_image
from pipeline.views.manifest import Manifest

SHOWN_IMAGES = 5

OBJECTS = (3, 8)
"""Smallest and largest number of objects of an image that is preferred."""

SHOWN_SCORE = 0.3
"""Detections above this score are drawn."""

FALLBACK_DETECTIONS = 3
"""The best few are drawn where none is above it."""

MATCH_IOU = 0.5
"""A detection finds an object of its class from this IoU on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownImage:
    """One validation image, and what is drawn of the detections of every detector."""

    pixels: Tensor
    """``ByteTensor[3, H, W]``."""
    objects: Sequence[Annotation]
    """What is there to be found."""
    detections: Mapping[str, Sequence[Result]]
    """By name of the detector, best first."""


def show_images(manifest: Manifest, detections: Mapping[str, Path]) -> list[ShownImage]:
    """Images of a split, with the detections of files by name; a ``DatasetError`` if one is missing."""
    results = {name: read_results(path) for name, path in detections.items()}
    return [
        ShownImage(
            pixels=read_image(*manifest.image_file(record)),
            objects=objects_of(record),
            detections={
                name: shown_detections([row for row in rows if row["image_id"] == record.image_id])
                for name, rows in results.items()
            },
        )
        for record in choose_images(manifest)
    ]


def choose_images(manifest: Manifest, count: int = SHOWN_IMAGES) -> list[ImageRecord]:
    """Evenly spread images of several objects; if there is none, evenly spread images."""
    low, high = OBJECTS
    several = [record for record in manifest.images if low <= len(objects_of(record)) <= high]
    chosen = several or [record for record in manifest.images if objects_of(record)] or list(manifest.images)
    return spread(chosen, count)


def objects_of(record: ImageRecord) -> list[Annotation]:
    """Annotations of single objects."""
    return [annotation for annotation in record.annotations if not annotation.iscrowd]


def shown_detections(results: Sequence[Result]) -> list[Result]:
    """Those above ``SHOWN_SCORE``, or the best few; best first."""
    ordered = sorted(results, key=lambda result: -float(result["score"]))
    confident = [result for result in ordered if result["score"] > SHOWN_SCORE]
    return confident or ordered[:FALLBACK_DETECTIONS]


def choose_colors(images: Sequence[ShownImage]) -> dict[int, str]:
    """Colors by category, the same in all images; they repeat if there are too many classes."""
    detected = (row["category_id"] for image in images for rows in image.detections.values() for row in rows)
    categories = {a.category_id for image in images for a in image.objects}.union(detected)
    return {category: class_color(number) for number, category in enumerate(sorted(categories))}


def draw_image(
    axes: Axes,
    image: ShownImage,
    detector: str | None,
    names: Mapping[int, str],
    colors: Mapping[int, str],
    scale: float,
) -> None:
    """The ground truth, or detections over dashed true boxes; classes are named where colors repeat."""
    draw_pixels(axes, image.pixels)
    if detector is None:
        drawn = [(a.category_id, a.box_xywh, names[a.category_id]) for a in image.objects]
    else:
        for annotation in image.objects:
            draw_box(axes, _xyxy(annotation.box_xywh), "white", 1.2, "--")
        drawn = []
        for result in image.detections[detector]:
            name = "" if len(colors) <= len(PALETTE) else f"{names[result['category_id']]} "
            drawn.append((result["category_id"], result["bbox"], f"{name}{result['score']:.2f}"))
    boxes = np.array([_xyxy(box) for _, box, _ in drawn]).reshape(-1, 4)
    chosen = [colors[category] for category, _, _ in drawn]
    for box, color in zip(boxes.tolist(), chosen, strict=True):
        draw_box(axes, box, color)
    draw_labels(axes, boxes, chosen, [text for _, _, text in drawn], scale)


def _xyxy(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box_xywh
    return x, y, x + width, y + height


def describe(image: ShownImage, name: str) -> str:
    """How many objects the drawn detections find, and how tightly."""
    results, objects = image.detections[name], image.objects
    if not results:
        return "no detection"
    overlaps, best = match(objects, results), float(results[0]["score"])
    weak = f"best score {best:.2f}, " if best <= SHOWN_SCORE else ""
    tightly = f", mean IoU {np.mean(overlaps):.2f}" if overlaps else ""
    return f"{weak}{len(overlaps)} of {len(objects)} found{tightly}"


def match(objects: Sequence[Annotation], results: Sequence[Result]) -> list[float]:
    """IoU of every found object: detections, best first, each take the object they overlap most."""
    true = torch.tensor([_xyxy(annotation.box_xywh) for annotation in objects]).reshape(-1, 4)
    boxes = torch.tensor([_xyxy(result["bbox"]) for result in results]).reshape(-1, 4)
    overlaps = box_iou(boxes[:, None], true[None]).numpy()
    matched: list[float] = []
    for result, row in zip(results, overlaps, strict=True):
        row[[annotation.category_id != result["category_id"] for annotation in objects]] = 0
        if len(objects) and row.max() >= MATCH_IOU:
            matched.append(float(row.max()))
            overlaps[:, row.argmax()] = 0
    return matched
