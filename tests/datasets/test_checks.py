"""A dataset that is not what it seems is named: missing files, boxes that are not in px, other classes.

Refusals that a stage shows are rows of ``tests/e2e/wrong_input.txt``.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from pipeline.core.errors import DatasetError
from pipeline.datasets.checks import (
    look_at_files,
    require_boxes_in_pixels,
    require_trainable,
    split_warnings,
    warnings,
)
from pipeline.views.classes import Category
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest

Box = tuple[float, float, float, float]


def split(*boxes: Box, root: str = "r", names: tuple[str, ...] = ("a", "b"), files: str = "0") -> Manifest:
    """Boxes in each of some images of 60 x 40 px; ``files`` has a letter a digest."""
    records = [
        ImageRecord(
            image_id=image,
            file_name=f"{image}.png",
            height=40,
            width=60,
            sha256=digest,
            annotations=tuple(
                Annotation(9 * image + n, 1, *b, area=1, iscrowd=False) for n, b in enumerate(boxes)
            ),
        )
        for image, digest in enumerate(files)
    ]
    categories = tuple(Category(category_id=number, name=name) for number, name in enumerate(names, 1))
    return Manifest(root=root, folder="", categories=categories, images=ImageTable.of(records))


def test_files_and_orientations_are_part_of_what_is_known_of_a_split(tmp_path: Path) -> None:
    pair = split(root=str(tmp_path), files="01")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.new("RGB", (40, 60)).save(tmp_path / "1.png", exif=exif)
    with pytest.raises(DatasetError, match=r"expected 2 images .*, but 1 are not there: .*0\.png"):
        look_at_files(pair)
    known = []
    for color in ("black", "black", "red"):
        Image.new("RGB", (60, 40), color).save(tmp_path / "0.png")
        known.append(look_at_files(pair))
    assert [manifest.turned_images for manifest in known] == [1, 1, 1]
    pixels = [manifest.identity()["pixels"] for manifest in known]
    assert pixels[0] == pixels[1] != pixels[2]


CORNERS = [(1, 2, 50, 39), (20, 5, 58, 30), (9, 9, 44, 39), (3, 8, 60, 40)]


@pytest.mark.parametrize("boxes", [[], [(0, 0, 60, 40)] * 4, [*CORNERS, (50, 1, 5, 5)], [(0, 0, 1, 1)] * 3])
def test_boxes_that_may_be_right_are_not_refused(boxes: list[Box]) -> None:
    """One that is a pixel over the border is not even worth a word."""
    require_boxes_in_pixels(split(*boxes))
    assert list(warnings(split((0, 0, 61, 40), (1, 2, 3, 4)))) == []


CENTERED = [(54, 30, 12, 20), (50, 31, 20, 18), (40, 33, 8, 14), (52, 8, 16, 10)]
CENTERED += [(20 + n, 20, 12, 10) for n in range(5)]
INSIDE = [(1, 1 + n, 6, 9) for n in range(5)]


@pytest.mark.parametrize(
    ("suspicious", "message"),
    [
        (split(*CORNERS, (50, 1, 5, 5)), "most boxes, which .*, leave their image: 3 of 5"),
        (split(*CENTERED), "4 boxes leave .* none would if their first two numbers were the center"),
        (split(*((2 + n, 30, 9, 25) for n in range(4)), *INSIDE), "if they were y, x, height, width"),
        (split(*((2 + n, 30, 11, 55) for n in range(4)), *INSIDE), "if they were y1, x1, y2, x2"),
        (split(*((n, n, 20 - n, 5) for n in range(8))), "all boxes lie in the upper left quarter"),
        (split(*[(1, 2, 50, 30)] * 2), "1 of 2 objects are there twice"),
        (split((1, 2, 50, 30), (5, 5, 0.5, 9), (5, 5, 9, 0)), "most objects are not trained on: 2 of 3"),
        (split(files="0"), "most images have no object to train on: 1 of 1"),
        (split((1, 2, 50, 30), files="aba"), "1 images are copies of others, under another name"),
        (
            split((1, 2, 50, 30), names=("Traffic Light", "b", "traffic  light ")),
            "several classes have the same name: Traffic Light, traffic  light ",
        ),
    ],
)
def test_what_is_probably_not_meant_is_warned_of(suspicious: Manifest, message: str) -> None:
    """Percent, boxes of a larger picture and centers are no error that could be proved."""
    (warning,) = warnings(suspicious)
    assert re.search(message, warning)


def test_images_in_both_splits_are_counted() -> None:
    (warning,) = split_warnings(split(files="abc"), split(files="bda"))
    assert warning == "2 of 3 images are training images, too"


def test_classes_are_compared_by_id_and_name_and_one_object_at_least_is_trained_on() -> None:
    train = split((1, 2, 50, 30), names=("cafe\u0301", "b"))
    require_trainable(train, split(names=("café", "b")))
    shifted = tuple(c._replace(category_id=c.category_id + 1) for c in train.categories)
    for first, other, message in (
        (train, split(names=("b", "café")), "got 'b'"),
        (train, split(names=("café",)), "expected 2 classes, but got 1"),
        (train, replace(train, categories=shifted), r"\(id 1\), but got .*\(id 2\)"),
        (split(), split(), "expected objects to train on, but there are none"),
    ):
        with pytest.raises(DatasetError, match=message):
            require_trainable(first, other)
