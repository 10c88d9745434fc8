"""A dataset that is not what it seems is named: missing files, boxes that are not in px, other classes."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.core.errors import DatasetError
from pipeline.datasets.checks import (
    look_at_files,
    require_boxes_in_pixels,
    require_objects,
    require_same_classes,
    shared_images,
    warnings,
)
from pipeline.views.classes import Category, class_names
from pipeline.views.image_table import Annotation, ImageRecord, ImageTable
from pipeline.views.manifest import Manifest
from pipeline.views.summary import leaving_image

Box = tuple[float, float, float, float]


def split(*boxes: Box, root: str = "r", names: tuple[str, ...] = ("a", "b"), images: int = 1) -> Manifest:
    """Boxes in each of some images of 60 x 40 px."""
    records = [
        ImageRecord(
            image_id=image,
            file_name=f"{image}.png",
            height=40,
            width=60,
            annotations=tuple(
                Annotation(9 * image + n, 1, *b, area=1, iscrowd=False) for n, b in enumerate(boxes)
            ),
        )
        for image in range(images)
    ]
    categories = tuple(Category(category_id=number, name=name) for number, name in enumerate(names, 1))
    return Manifest(root=root, folder="", categories=categories, images=ImageTable.of(records))


def test_all_missing_images_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "2.png")
    message = r"expected 6 images .*, but 5 are not there: .*0\.png, .*1\.png"
    with pytest.raises(DatasetError, match=message):
        look_at_files(split(root=str(tmp_path), images=6))


def test_files_and_orientations_are_part_of_what_is_known_of_a_split(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    Image.new("RGB", (60, 40)).save(tmp_path / "0.png")
    Image.new("RGB", (40, 60)).save(tmp_path / "1.png", exif=exif)
    before = look_at_files(split(root=str(tmp_path), images=2))
    assert before.turned_images == 1
    assert look_at_files(split(root=str(tmp_path), images=2)).pixels_sha256 == before.pixels_sha256
    Image.new("RGB", (60, 40), "red").save(tmp_path / "0.png")
    assert look_at_files(split(root=str(tmp_path), images=2)).pixels_sha256 != before.pixels_sha256


CORNERS = [(1, 2, 50, 39), (20, 5, 58, 30), (9, 9, 44, 39), (3, 8, 60, 40)]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0.1, 0.2, 0.3, 0.4)] * 4, "seem to be shares of the image"),
        (CORNERS, "if they were x1, y1, x2, y2"),
    ],
)
def test_boxes_in_other_units_are_refused(boxes: list[Box], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        require_boxes_in_pixels(split(*boxes))


@pytest.mark.parametrize("boxes", [[], [(0, 0, 60, 40)] * 4, [*CORNERS, (50, 1, 5, 5)], [(0, 0, 1, 1)] * 3])
def test_boxes_that_may_be_right_are_not_refused(boxes: list[Box]) -> None:
    require_boxes_in_pixels(split(*boxes))


def test_boxes_that_leave_their_image_are_warned_of() -> None:
    leaving = split(*CORNERS, (50, 1, 5, 5))
    assert leaving_image(leaving).sum() == 3
    (warning,) = warnings(leaving)
    assert "most boxes leave their image (3 of 5)" in warning
    inside = split((0, 0, 61, 40), (1, 2, 3, 4))
    assert list(warnings(inside)) == []


CENTERED = [(54, 30, 12, 20), (50, 31, 20, 18), (40, 33, 8, 14), (52, 8, 16, 10)]
CENTERED += [(20 + n, 20, 12, 10) for n in range(5)]
INSIDE = [(1, 1 + n, 6, 9) for n in range(5)]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (CENTERED, "4 boxes leave their image, and none would if their first two numbers were the center"),
        ([(2 + n, 30, 9, 25) for n in range(4)] + INSIDE, "none would if they were y, x, height, width"),
        ([(2 + n, 30, 11, 55) for n in range(4)] + INSIDE, "none would if they were y1, x1, y2, x2"),
        ([(n, n, 20 - n, 5) for n in range(8)], "all boxes lie in the upper left quarter"),
        ([(1, 2, 50, 30)] * 2, "1 of 2 objects are there twice"),
    ],
)
def test_boxes_that_are_probably_not_meant_are_warned_of(boxes: list[Box], message: str) -> None:
    """Percent, boxes of a larger picture and centers are no error that could be proved."""
    (warning,) = warnings(split(*boxes))
    assert message in warning


def test_images_in_both_splits_are_counted() -> None:
    def with_files(*digests: str) -> Manifest:
        manifest = split(images=len(digests))
        return replace(manifest, images=replace(manifest.images, sha256=np.array(digests, "S64")))

    assert shared_images(with_files("a", "b", "c"), with_files("b", "d", "a")) == 2
    copied = with_files("a", "b", "a")
    assert "1 images are copies of others, under another name" in list(warnings(copied))


def test_classes_are_compared_by_id_and_name() -> None:
    train = split(names=("cafe\u0301", "b"))
    require_same_classes(train, split(names=("café", "b")))
    for other, message in ((("b", "café"), "got 'b'"), (("café",), "expected 2 classes, but got 1")):
        with pytest.raises(DatasetError, match=message):
            require_same_classes(train, split(names=other))
    shifted = tuple(c._replace(category_id=c.category_id + 1) for c in train.categories)
    with pytest.raises(DatasetError, match=r"\(id 1\), but got .*\(id 2\)"):
        require_same_classes(train, replace(train, categories=shifted))


def test_names_that_are_almost_equal_are_warned_of() -> None:
    almost = split((1, 2, 50, 30), names=("Traffic Light", "b", "traffic  light "))
    (warning,) = warnings(almost)
    assert "several classes have the same name: traffic  light " in warning


def test_a_training_split_without_an_object_is_refused_and_images_without_one_are_counted() -> None:
    nothing = split(images=2)
    with pytest.raises(DatasetError, match="expected objects to train on, but there are none"):
        require_objects(nothing)
    records = [msgspec.structs.replace(record, image_id=9) for record in split((1, 2, 50, 30)).images]
    mixed = replace(nothing, images=ImageTable.of([*records, *nothing.images]))
    (warning,) = warnings(mixed)
    assert "most images have no object to train on: 2 of 3" in warning


def test_equal_names_get_their_ids() -> None:
    assert class_names(split(names=("cat", "dog", "cat")).categories) == ["cat (1)", "dog", "cat (3)"]
