"""Whether a dataset is what it seems: files are there, boxes are in px, both splits have the same classes."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from pipeline.core.errors import DatasetError
from pipeline.views.classes import ids_difference, same_name
from pipeline.views.decode import inspect_image
from pipeline.views.manifest import Manifest
from pipeline.views.summary import SplitSummary, leaving_image

MAX_NAMED = 3
"""Of many files that are missing."""

MIN_BOXES = 4
"""Fewer boxes prove nothing."""

READERS = 8
"""Threads: reading and hashing release the interpreter."""

Inspected = tuple[str, bool]


def look_at_files(
    manifest: Manifest, progress: Callable[[Iterable[Inspected]], Iterable[Inspected]]
) -> Manifest:
    """The manifest with what is known of each image's file: its sha256, and whether it is turned.

    Raises:
        DatasetError: Says how many images are missing, and names the first ones; or names one that is no
            image of the annotated size.
    """
    files = [manifest.image_file(record)[:2] for record in manifest.images]
    missing = [path for path, _ in files if not path.is_file()]
    if missing:
        first = ", ".join(map(str, missing[:MAX_NAMED]))
        raise DatasetError(
            f"expected {len(files):,} images that the annotations name, but {len(missing):,} are not there: "
            f"{first}{', ...' if len(missing) > MAX_NAMED else ''}"
        )
    with ThreadPoolExecutor(READERS) as pool:
        seen = list(progress(pool.map(lambda file: inspect_image(*file), files)))
    return replace(
        manifest,
        images=replace(manifest.images, sha256=np.array([sha256 for sha256, _ in seen], "S64")),
        turned_images=sum(turned for _, turned in seen),
    )


def require_boxes_in_pixels(manifest: Manifest) -> None:
    """Refuse boxes that are certainly no ``x, y, width, height`` in px.

    Raises:
        DatasetError: Says what they seem to be.
    """
    boxes = manifest.images.annotations
    if len(boxes) < MIN_BOXES:
        return
    where = f"{manifest.root}/{manifest.annotations}: expected boxes as x, y, width, height in px"
    if max(np.abs(boxes[side]).max() for side in ("x", "y", "width", "height")) <= 1:
        raise DatasetError(
            f"{where}, but no number in them is above 1: they seem to be shares of the image; "
            "multiply them by its width and height"
        )
    height, width = np.repeat(manifest.images.size_hw, np.diff(manifest.images.offset), axis=0).T
    corners = (boxes["width"] > boxes["x"]) & (boxes["height"] > boxes["y"])
    corners &= (boxes["width"] <= width + 1) & (boxes["height"] <= height + 1)
    if corners.all() and leaving_image(manifest).mean() > 0.5:
        raise DatasetError(
            f"{where}, but most leave their image, which they would not if they were x1, y1, x2, y2: "
            "subtract the first two numbers from the last two"
        )


def require_same_classes(train: Manifest, val: Manifest) -> None:
    """Refuse splits in which a label means two things.

    Raises:
        DatasetError: Names the first class that differs.
    """
    difference = ids_difference(train.categories, val.categories)
    if difference:
        raise DatasetError(f"{val.root}/{val.annotations}: the training split's classes: {difference}")


def require_objects(manifest: Manifest, summary: SplitSummary) -> None:
    """Refuse a training split none of whose objects is trained on.

    Raises:
        DatasetError: Says why.
    """
    if summary.objects and not summary.trained_on:
        raise DatasetError(
            f"{manifest.root}/{manifest.annotations}: expected objects to train on, "
            f"but of {summary.objects:,} all are left out: {summary.reasons()}"
        )


def warnings(manifest: Manifest, summary: SplitSummary) -> list[str]:
    """What is probably not meant, a sentence each."""
    names = [category.name for category in manifest.categories]
    equal = [name for place, name in enumerate(names) if any(same_name(name, n) for n in names[:place])]
    left_out = summary.objects - summary.trained_on
    checks = [
        (not summary.objects, "there are no objects"),
        (
            left_out > 0.5 * summary.objects,
            f"most objects are not trained on: {left_out:,} of {summary.objects:,}",
        ),
        (
            summary.leaving_image > 0.5 * summary.objects,
            f"most boxes leave their image ({summary.leaving_image:,} of {summary.objects:,}): "
            "are they x, y, width, height in px?",
        ),
        (bool(equal), f"several classes have the same name: {', '.join(dict.fromkeys(equal))}"),
    ]
    return [sentence for holds, sentence in checks if holds]
