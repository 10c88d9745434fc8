"""Wrong annotations and images: one clear line and an exit code, and nothing that was computed is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished import FOLDER, call, files_below
from PIL import Image
from project import edited_json
from wrong_input import (
    CACHE,
    DATA,
    LAST_IMAGE,
    STORE,
    TEACHER,
    TRAIN,
    VAL,
    VAL_IMAGE,
    Wrong,
    both,
    boxes,
    coco,
    cut,
    each,
    huge,
    image,
    inverted,
    moving,
    removed,
    require_one_clear_line,
    written,
    wrong,
)

from pipeline.views.manifest import read_manifest
from recipes import DATASET

VALUES = r"""
    images = {} | a list 'images'
    images 0 height = "64" | images[0] (id 1).height: expected an integer from 1 to 1e+09 (px), but got "64"
    images 0 height = true | but got true
    images 0 height = 0 | images[0] (id 1).height: expected an integer from 1 to 1e+09 (px), but got 0
    images 0 width = -64 | width: expected an integer from 1 to 1e+09 (px), but got -64
    images 0 id = 1180591620717411303424 | id: expected an integer of 64 bits, but got 1180591620717411303424
    images 0 file_name = "../val/a.bmp" | a path inside the image folder, but got '../val/a.bmp'
    images 0 file_name = "/etc/passwd" | inside the image folder, but got '/etc/passwd'
    images 0 file_name = "..\\a.bmp" | inside the image folder
    images 0 file_name = "" | expected file_name as a path inside the image folder, but got ''
    images 0 file_name = "a\u0000.bmp" | inside the image folder
    images 7 file_name = "a\nerror: all is well\u001b[2J.bmp" | a\nerror: all is well\x1b[2J.bmp
    images = [] | is not in images
    categories 0 name = "car\n" | category 1: expected a name without line breaks and control characters, but
    categories 1 name = "\u001b[2J" | but got '\x1b[2J'
    categories 1 name = " " | but got ' '
    annotations 0 bbox = [1, 2, 3] | bbox: expected 4 finite numbers
    annotations 0 bbox = ["1", 2, 3, 4] | but got ["1", 2, 3, 4]
    annotations 0 bbox 2 = NaN | bbox: expected 4 finite numbers
    annotations 0 bbox 0 = Infinity | bbox: expected 4 finite numbers
    annotations 0 bbox 2 = 1e300 | of at most 1e+09
    annotations 0 area = "large" | area: expected a finite number, but got "large"
    annotations 0 image_id = 99 | image_id 99 is not in images
    annotations 0 category_id = 99 | category_id 99 is not in categories
    """
"""A value of the training annotations as JSON, and the error."""


def rows() -> list[Wrong]:
    found = []
    for line in VALUES.strip().splitlines():
        change, _, says = line.strip().partition(" | ")
        keys, _, value = change.partition(" = ")
        path = [int(key) if key.isdecimal() else key for key in keys.split()]
        found.append(wrong(DATA, says, edit=coco(*path, to=json.loads(value))))
    return found


def small(old: Image.Image) -> Image.Image:
    return old.resize((20, 20))


ANNOTATIONS = [
    wrong(DATA, "is not JSON", edit=written(TRAIN, "images: []")),
    wrong(DATA, "instances_train.json", "is not JSON", edit=cut(TRAIN, 900)),
    wrong(DATA, "instances_val.json", edit=written(VAL, "")),
    wrong(DATA, "not JSON", edit=written(TRAIN, b"\xff\xfe\x00\xd8")),
    wrong(DATA, "cannot be read", edit=removed(TRAIN)),
    wrong(
        DATA,
        "expected class 'ellipse' (id 1), but got 'square' (id 1)",
        edit=coco("categories", 0, "name", to="square", path=VAL),
    ),
    wrong(
        DATA,
        "if they were x1, y1, x2, y2",
        edit=boxes(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]),
    ),
    wrong(
        DATA,
        "expected objects to train on, but of",
        "all are left out",
        "crowds (iscrowd)",
        edit=each("annotations", iscrowd=1),
    ),
    wrong(
        DATA,
        "expected images to train on, but 8 of 8 images are not trained on: a side is below 32 px",
        edit=both(
            each("images", width=20, height=20),
            *(image(DATASET / f"train/{n:012}.bmp", "BMP", small) for n in range(1, 9)),
        ),
    ),
]

PLACES = [
    wrong(
        DATA,
        "expected 8 images that the annotations name, but 1 are not there",
        "000000000008.bmp",
        edit=removed(LAST_IMAGE),
    ),
    wrong(DATA, "/nowhere/tiny: expected the folder of a dataset", environment={"LDP_DATASETS": "/nowhere"}),
    wrong(CACHE, "/nowhere/tiny/train/", "expected an image, but", environment={"LDP_DATASETS": "/nowhere"}),
]

ANOTHER = "expected the image that prepare_data has seen"

IMAGES = [
    *(
        wrong(stage, ANOTHER, edit=image(path, "BMP", inverted))
        for stage, path in (
            (TEACHER, LAST_IMAGE),
            (CACHE, LAST_IMAGE),
            ("train_student ld", LAST_IMAGE),
            ("evaluate ld", VAL_IMAGE),
        )
    ),
    wrong(CACHE, "000000000008.bmp", ANOTHER, edit=cut(LAST_IMAGE, 900)),
    wrong(DATA, "cannot be read as any of", edit=written(LAST_IMAGE, b"")),
    wrong(
        "evaluate ld",
        "000001000001.bmp: expected an image, but it cannot be read as any of",
        edit=written(VAL_IMAGE, "hello"),
    ),
    wrong(
        "train_student ld", "000000000008.bmp: expected an image, but there is none", edit=removed(LAST_IMAGE)
    ),
    wrong(DATA, "but got (20000, 20000)", edit=image(LAST_IMAGE, "PNG", huge)),
    wrong(DATA, "but got 2 frames", edit=moving(LAST_IMAGE, "GIF")),
    wrong(DATA, "but got 2 frames", edit=moving(VAL_IMAGE, "PNG")),
    wrong(DATA, "expected an image of (height, width) =", edit=image(LAST_IMAGE, "BMP", small)),
]


@pytest.mark.parametrize("row", rows() + ANNOTATIONS + PLACES + IMAGES, ids=str)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)


@pytest.mark.usefixtures("own_project")
def test_boxes_without_a_size_or_outside_the_image_are_legal_and_not_trained_on() -> None:
    """As in mmdetection; COCO itself has them. With them in both splits, every stage still runs."""
    before = read_manifest(FOLDER.manifest("train"))
    boxes = [[5, 5, 0, 9], [5, 5, 9, -3], [5, 5, 0.5, 9], [-50, 5, 9, 9], [900, 5, 9, 9], [5, 5, -4, -4]]
    for path in (TRAIN, VAL):
        with edited_json(path) as content:
            row = {"image_id": content["images"][0]["id"], "category_id": 1}
            content["annotations"] += [
                {**row, "id": 9000 + number, "bbox": box, "area": box[2] * box[3]}
                for number, box in enumerate(boxes)
            ]
    for stage in (DATA, TEACHER, "evaluate teacher", CACHE):
        assert call(stage).code == 0
    after = read_manifest(FOLDER.manifest("train"))
    assert len(after.images[0].annotations) == len(before.images[0].annotations) + len(boxes)
    old, new = (manifest.training_boxes(manifest.images[0].image_id) for manifest in (before, after))
    np.testing.assert_array_equal(old.boxes_xyxy, new.boxes_xyxy)
    np.testing.assert_array_equal(old.labels, new.labels)


@pytest.mark.usefixtures("own_project")
@pytest.mark.parametrize("linked", [DATASET / "train", LAST_IMAGE])
def test_images_and_their_folder_may_be_links(linked: Path) -> None:
    """DVC, git-annex and hubs leave each image as a link into a cache."""
    linked.rename("elsewhere")
    linked.symlink_to(Path("elsewhere").absolute())
    manifest = FOLDER.manifest("train").read_bytes()
    assert call(DATA).code == 0
    assert FOLDER.manifest("train").read_bytes() == manifest


def test_bad_images_leave_the_finished_partitions_and_the_next_run_uses_them(own_project: Path) -> None:
    """All partitions but one are finished when an image proves bad: once it is mended, that one runs."""
    store = files_below(own_project / STORE)
    good = LAST_IMAGE.read_bytes()
    LAST_IMAGE.write_bytes(good[:900])
    assert call(CACHE).code == 1
    LAST_IMAGE.write_bytes(good)
    assert call(CACHE).code == 0
    assert json.loads(FOLDER.cache_timing.read_text())["computed_views"] == 4
    assert files_below(own_project / STORE) == store


@pytest.mark.usefixtures("own_project")
def test_the_summary_counts_what_was_read(caplog: pytest.LogCaptureFixture) -> None:
    with edited_json(TRAIN) as train, edited_json(VAL) as val:
        rows = train["annotations"]
        for row, flag in ((rows[0], "iscrowd"), (rows[1], "ignore"), (rows[2], "ignore")):
            row[flag] = 1
        for split in (train, val):
            split["categories"][0]["name"] = split["categories"][1]["name"]
    caplog.set_level("INFO")
    assert call(DATA).code == 0
    summary = json.loads(FOLDER.data_metric("train").read_text())
    assert summary["images"] == 8
    assert summary["objects"] == len(rows) == summary["trained_on"] + 3
    assert (summary["crowd"], summary["ignore"]) == (1, 2)
    said = caplog.text
    assert f"train: {len(rows)} objects; trained on are {len(rows) - 3}" in said
    assert "1 crowds (iscrowd), 2 to be ignored (ignore)" in said
    assert "train: WARNING: several classes have the same name: rectangle" in said
    assert "rectangle (1) " in said
    assert "rectangle (3) " in said


@pytest.mark.usefixtures("own_project")
def test_classes_that_are_validated_and_never_taught_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with edited_json(TRAIN) as content:
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] != 3]
    assert call(DATA).code == 0
    assert "val: WARNING: classes without an object to train on: rectangle" in caplog.text


def test_objects_too_small_for_any_point_are_warned_of(
    own_project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes(lambda box: [*box[:2], 2, 2])(own_project)
    assert call(DATA).code == call(CACHE).code == 0
    assert "for the 30 objects of all views: objects smaller than a cell get none" in caplog.text


@pytest.mark.usefixtures("own_project")
def test_a_split_of_which_most_is_not_trained_on_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with edited_json(TRAIN) as content:
        for row in content["annotations"][1:]:
            row["iscrowd"] = 1
    assert call(DATA).code == 0
    assert "train: WARNING: most objects are not trained on" in caplog.text
    assert "val: WARNING: most" not in caplog.text
