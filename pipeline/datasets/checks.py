"""Whether a dataset is what it seems: files are there, boxes are in px, both splits have the same classes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DatasetError, listed
from pipeline.core.progress import show_progress
from pipeline.views.classes import ids_difference
from pipeline.views.decode import inspect_image
from pipeline.views.manifest import Manifest
from pipeline.views.summary import leaving_image, reasons

MIN_BOXES = 4
"""Fewer boxes prove nothing."""

SIDES = ("x", "y", "width", "height")
Side = NDArray[np.float64]
Reading = Callable[[Side, Side, Side, Side], tuple[Side, Side, Side, Side]]
CORNERS = "they were x1, y1, x2, y2"
READINGS: dict[str, Reading] = {
    CORNERS: lambda x, y, right, bottom: (x, y, right - x, bottom - y),
    "their first two numbers were the center": lambda x, y, w, h: (x - w / 2, y - h / 2, w, h),
    "they were y, x, height, width": lambda y, x, h, w: (x, y, w, h),
    "they were y1, x1, y2, x2": lambda y, x, bottom, right: (x, y, right - x, bottom - y),
}
"""Other ways to write a box, and what they would mean."""


def look_at_files(manifest: Manifest) -> Manifest:
    """The manifest with each file's sha256 and how many EXIF turns; a ``DatasetError`` names unfit files."""
    files = [manifest.image_file(record)[:2] for record in manifest.images]
    missing = [path for path, _ in files if not path.is_file()]
    if missing:
        raise DatasetError(
            f"expected {len(files):,} images that the annotations name, but {len(missing):,} are not there: "
            f"{listed(missing, 3)}"
        )
    with ThreadPoolExecutor(8) as pool:  # reading and hashing release the interpreter
        looked_at = pool.map(lambda file: inspect_image(*file), files)
        seen = list(show_progress(looked_at, len(files), f"look at {manifest.folder}"))
    images = replace(manifest.images, sha256=np.array([sha256 for sha256, _ in seen], "S64"))
    return replace(manifest, images=images, turned_images=sum(turned for _, turned in seen))


def require_boxes_in_pixels(manifest: Manifest) -> None:
    """Refuse boxes that are no ``x, y, width, height`` in px; a ``DatasetError`` says what they seem."""
    boxes, got = manifest.images.annotations, ""
    if len(boxes) < MIN_BOXES:
        return
    if max(np.abs(boxes[side]).max() for side in SIDES) <= 1:
        got = "no number in them is above 1: multiply these shares of the image by its width and height"
    elif leaving_image(manifest).mean() > 0.5 and _fits(manifest, READINGS[CORNERS]):
        got = (
            f"most leave their image, which they would not if {CORNERS}: "
            "subtract the first two numbers from the last two"
        )
    if got:
        where = f"{manifest.root}/{manifest.annotations}"
        raise DatasetError(f"{where}: expected boxes as x, y, width, height in px, but {got}")


def require_trainable(train: Manifest, val: Manifest) -> None:
    """Refuse splits of other classes, and training without an object, by a ``DatasetError`` that says why."""
    if difference := ids_difference(train.categories, val.categories):
        raise DatasetError(f"{val.root}/{val.annotations}: the training split's classes: {difference}")
    if not len(train.trained_on):
        objects = len(train.drop_reason)
        got = f"of {objects:,} all are left out: {reasons(train)}" if objects else "there are none"
        raise DatasetError(f"{train.root}/{train.annotations}: expected objects to train on, but {got}")


def warnings(manifest: Manifest) -> Iterator[str]:
    """What is probably not meant, a sentence each."""
    images, boxes, objects = manifest.images, manifest.images.annotations, len(manifest.images.annotations)
    leaving = np.count_nonzero(leaving_image(manifest))
    for words, count, total in (
        ("images have no object to train on", np.count_nonzero(manifest.trained_on_counts == 0), len(images)),
        ("objects are not trained on", objects - len(manifest.trained_on), objects),
        ("boxes, which should be x, y, width, height in px, leave their image", leaving, objects),
    ):
        if count > 0.5 * total:
            yield f"most {words}: {count:,} of {total:,}"
    height, width = images.annotated_hw().T
    ends = np.maximum((boxes["x"] + boxes["width"]) / width, (boxes["y"] + boxes["height"]) / height)
    if objects >= MIN_BOXES and ends.max() <= 0.5:
        yield "all boxes lie in the upper left quarter of their images: are they in px of these very images?"
    fitting = next((words for words, reading in READINGS.items() if _fits(manifest, reading)), None)
    if leaving >= MIN_BOXES and fitting:
        yield (
            f"{leaving:,} boxes leave their image, and none would if {fitting}: expected x, y of the upper "
            "left corner, width, height"
        )
    twice = objects - len(set(boxes[["image_id", "category_id", *SIDES]].tolist()))
    if twice > 0.1 * objects:  # COCO has far fewer
        yield f"{twice:,} of {objects:,} objects are there twice: the same image, class and box"
    files = images.sha256[images.sha256 != b""]
    if copies := len(files) - len(np.unique(files)):
        yield f"{copies:,} images are copies of others, under another name"
    names = ["".join(category.name.casefold().split()) for category in manifest.categories]
    alike = [c.name for c, name in zip(manifest.categories, names, strict=True) if names.count(name) > 1]
    if alike:
        yield f"several classes have the same name: {', '.join(alike)} (case and spaces aside)"


def split_warnings(train: Manifest, val: Manifest) -> Iterator[str]:
    """What of validation has no use: images that are trained on, classes that are not."""
    if shared := np.count_nonzero(np.isin(val.images.sha256, train.images.sha256)):
        yield f"{shared} of {len(val.images)} images are training images, too"
    ids = set(val.trained_on["category_id"].tolist()) - set(train.trained_on["category_id"].tolist())
    if ids:
        names = [category.name for category in val.categories if category.category_id in ids]
        yield f"classes without an object to train on: {', '.join(names)}"


def _fits(manifest: Manifest, reading: Reading) -> bool:
    """Whether all boxes lie in their images if their numbers are read in another way."""
    sides = reading(*(manifest.images.annotations[side] for side in SIDES))
    boxes = dict(zip(SIDES, sides, strict=True))
    return not (leaving_image(manifest, boxes) | (boxes["width"] < 0) | (boxes["height"] < 0)).any()
