"""Validation images side by side: ground truth, teacher and students."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.detect import Result, read_results
from pipeline.report.pictures import (
    PALETTE,
    Mark,
    Picture,
    Rectangle,
    class_colors,
    embed_picture,
    place_marks,
)
from pipeline.views.image_table import Annotation, ImageRecord
from pipeline.views.images import read_image
from pipeline.views.manifest import Manifest

STRIPS = 5
"""Images that are shown."""

OBJECTS = (3, 8)
"""Smallest and largest number of objects of an image that is preferred."""

SHOWN_SCORE = 0.3
"""Detections above this score are drawn."""

FALLBACK_DETECTIONS = 3
"""The best few are drawn where none is above it."""

MATCH_IOU = 0.5
"""A detection finds an object of its class from this IoU on."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a strip: its marks, and one line of text below it."""

    title: str
    marks: Sequence[Mark]
    truth: Sequence[Rectangle]
    """True boxes, drawn thin below the marks; empty in the panel of the ground truth itself."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Strip:
    """One validation image as everyone sees it."""

    image_id: int
    picture: Picture
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All strips, and the colors that classes have in all of them, by name; none if there are too many."""

    strips: Sequence[Strip]
    colors: Mapping[str, str]


def choose_images(manifest: Manifest, count: int = STRIPS) -> list[ImageRecord]:
    """Evenly spread images of several objects; if there is none, evenly spread images."""
    low, high = OBJECTS
    several = [record for record in manifest.images if low <= len(_objects(record)) <= high]
    chosen = several or [record for record in manifest.images if _objects(record)] or list(manifest.images)
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    return [chosen[place] for place in places]


def _objects(record: ImageRecord) -> list[Annotation]:
    return [annotation for annotation in record.annotations if not annotation.iscrowd]


def read_shown(path: Path, image_ids: Iterable[int]) -> dict[int, list[Result]]:
    """What is drawn of a file of detections, by image, best first."""
    found: dict[int, list[Result]] = {image_id: [] for image_id in image_ids}
    for result in read_results(path):
        if result["image_id"] in found:
            found[result["image_id"]].append(result)
    return {image_id: shown_detections(results) for image_id, results in found.items()}


def shown_detections(results: Sequence[Result]) -> list[Result]:
    """Those above ``SHOWN_SCORE``, or the best few; best first."""
    ordered = sorted(results, key=lambda result: -float(result["score"]))
    confident = [result for result in ordered if result["score"] > SHOWN_SCORE]
    return confident or ordered[:FALLBACK_DETECTIONS]


@dataclass(frozen=True, kw_only=True)
class _Classes:
    """How the classes of one strip are drawn."""

    names: Mapping[int, str]
    colors: Mapping[int, str]
    explained: frozenset[int]
    """Classes whose color the page explains elsewhere: by a legend, or by the ground truth beside."""

    def label(self, result: Result) -> str:
        """The score, and the class where its color alone would not tell it."""
        score = f"{result['score']:.2f}"
        category: int = result["category_id"]
        return score if category in self.explained else f"{self.names[category]} {score}"


def make_gallery(
    manifest: Manifest,
    records: Sequence[ImageRecord],
    detections: Mapping[str, Mapping[int, Sequence[Result]]],
    shown: float,
) -> Gallery:
    """Strips of ``records``, pictures ``shown`` px wide.

    Classes have the same colors in all strips if there are enough colors; else in each strip its own.

    Args:
        manifest: Of the validation split.
        records: See :func:`choose_images`.
        detections: By name of the detector, then by image.
        shown: Long edge of a picture, px.
    """
    names = {category.category_id: category.name for category in manifest.categories}
    by_record = [
        {name: by_image[record.image_id] for name, by_image in detections.items()} for record in records
    ]
    categories = [_categories(record, found) for record, found in zip(records, by_record, strict=True)]
    shared = class_colors(set().union(*categories))
    legend = shared if len(shared) <= len(PALETTE) else {}
    strips = []
    for record, found, mine in zip(records, by_record, categories, strict=True):
        true = frozenset(annotation.category_id for annotation in _objects(record))
        classes = _Classes(
            names=names,
            colors=legend or class_colors(mine),
            explained=frozenset(legend) or true,
        )
        strips.append(_strip(manifest, record, found, classes, shown))
    return Gallery(strips=strips, colors={names[category]: color for category, color in legend.items()})


def _categories(record: ImageRecord, found: Mapping[str, Sequence[Result]]) -> set[int]:
    """All classes that are drawn in one strip."""
    categories = {annotation.category_id for annotation in _objects(record)}
    return categories | {result["category_id"] for results in found.values() for result in results}


def _strip(
    manifest: Manifest,
    record: ImageRecord,
    found: Mapping[str, Sequence[Result]],
    classes: _Classes,
    shown: float,
) -> Strip:
    pixels = read_image(manifest.image_path(record), (record.height, record.width))
    picture = embed_picture(pixels, shown)
    panels = [_truth_panel(record, picture, classes)]
    panels += [_found_panel(name, record, results, picture, classes) for name, results in found.items()]
    return Strip(image_id=record.image_id, picture=picture, panels=panels)


def _truth_panel(record: ImageRecord, picture: Picture, classes: _Classes) -> Panel:
    objects = _objects(record)
    marks = place_marks(
        [annotation.box_xywh for annotation in objects],
        [classes.colors[annotation.category_id] for annotation in objects],
        [classes.names[annotation.category_id] for annotation in objects],
        picture,
    )
    plural = "" if len(objects) == 1 else "s"
    return Panel(title="ground truth", marks=marks, truth=[], caption=f"{len(objects)} object{plural}")


def _found_panel(
    title: str, record: ImageRecord, results: Sequence[Result], picture: Picture, classes: _Classes
) -> Panel:
    marks = place_marks(
        [result["bbox"] for result in results],
        [classes.colors[result["category_id"]] for result in results],
        [classes.label(result) for result in results],
        picture,
    )
    truth = [_scaled(annotation.box_xywh, picture.scale) for annotation in _objects(record)]
    return Panel(title=title, marks=marks, truth=truth, caption=describe(record, results))


def _scaled(box_xywh: Rectangle, scale: float) -> Rectangle:
    x, y, width, height = box_xywh
    return x * scale, y * scale, width * scale, height * scale


def describe(record: ImageRecord, results: Sequence[Result]) -> str:
    """How many objects the drawn detections find, and how tightly."""
    if not results:
        return "no detection"
    objects = _objects(record)
    overlaps = match(objects, results)
    best = float(results[0]["score"])
    weak = f"best score {best:.2f}, " if best <= SHOWN_SCORE else ""
    if not overlaps:
        return f"{weak}0 of {len(objects)} found"
    return f"{weak}{len(overlaps)} of {len(objects)} found, mean IoU {np.mean(overlaps):.2f}"


def match(objects: Sequence[Annotation], results: Sequence[Result]) -> list[float]:
    """IoU of every found object: detections, best first, each take the object they overlap most."""
    free = list(objects)
    overlaps = []
    for result in results:
        candidates = [
            (box_iou(annotation.box_xywh, result["bbox"]), place)
            for place, annotation in enumerate(free)
            if annotation.category_id == result["category_id"]
        ]
        overlap, place = max(candidates, default=(0.0, 0))
        if overlap >= MATCH_IOU:
            overlaps.append(overlap)
            del free[place]
    return overlaps


def box_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of two boxes ``(x, y, width, height)``."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = one[2] * one[3] + other[2] * other[3] - shared
    return shared / union if union > 0 else 0.0
