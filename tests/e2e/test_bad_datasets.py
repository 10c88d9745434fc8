"""Wrong annotations and images: one clear line and an exit code, and nothing that was computed is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished import FOLDER, call, files_below
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
    params,
    removed,
    require_one_clear_line,
    twice,
    written,
)

from pipeline.views.manifest import read_manifest, training_boxes
from recipes import DATASET

ANNOTATIONS = [
    Wrong(does="no JSON", edit=written(TRAIN, "images: []"), run=DATA, says=("is not JSON",)),
    Wrong(does="cut JSON", edit=cut(TRAIN, 900), run=DATA, says=("instances_train.json", "is not JSON")),
    Wrong(does="an empty annotation file", edit=written(VAL, ""), run=DATA, says=("instances_val.json",)),
    Wrong(does="JSON of no depth", edit=written(TRAIN, "[" * 200_000), run=DATA, says=("is not JSON",)),
    Wrong(
        does="bytes that are no text", edit=written(TRAIN, b"\xff\xfe\x00\xd8"), run=DATA, says=("not JSON",)
    ),
    Wrong(
        does="a list as annotations",
        edit=written(TRAIN, "[]"),
        run=DATA,
        says=("with categories, images and annotations, but got []",),
    ),
    Wrong(does="no categories", edit=written(TRAIN, '{"images": []}'), run=DATA, says=("'categories'",)),
    Wrong(does="images as a mapping", edit=coco("images", to={}), run=DATA, says=("a list 'images'",)),
    Wrong(does="an annotation file that is missing", edit=removed(TRAIN), run=DATA, says=("cannot be read",)),
    Wrong(
        does="a folder as annotations",
        edit=params(DATA, "coco", "train", "annotations", to="train"),
        run=DATA,
        says=("Is a directory",),
    ),
    Wrong(
        does="a height in words",
        edit=coco("images", 0, "height", to="64"),
        run=DATA,
        says=('images[0] (id 1).height: expected an integer from 1 to 1e+09 (px), but got "64"',),
    ),
    Wrong(
        does="a height of true",
        edit=coco("images", 0, "height", to=True),
        run=DATA,
        says=("but got true",),
    ),
    Wrong(
        does="a height of 0",
        edit=coco("images", 0, "height", to=0, path=VAL),
        run=DATA,
        says=(
            "instances_val.json: images[0] (id 1000001).height: expected an integer from 1 to 1e+09",
            "but got 0",
        ),
    ),
    Wrong(
        does="a negative width",
        edit=coco("images", 0, "width", to=-64),
        run=DATA,
        says=("width: expected an integer from 1 to 1e+09 (px), but got -64",),
    ),
    Wrong(
        does="an id of 70 bits",
        edit=coco("images", 0, "id", to=2**70),
        run=DATA,
        says=("id: expected an integer of 64 bits, but got 1180591620717411303424",),
    ),
    Wrong(
        does="a box of three numbers",
        edit=coco("annotations", 0, "bbox", to=[1, 2, 3]),
        run=DATA,
        says=("bbox: expected 4 finite numbers",),
    ),
    Wrong(
        does="a box of words",
        edit=coco("annotations", 0, "bbox", to=["1", 2, 3, 4]),
        run=DATA,
        says=('but got ["1", 2, 3, 4]',),
    ),
    Wrong(
        does="NaN in a box",
        edit=coco("annotations", 0, "bbox", 2, to=float("nan")),
        run=DATA,
        says=("bbox: expected 4 finite numbers",),
    ),
    Wrong(
        does="Infinity in a box",
        edit=coco("annotations", 0, "bbox", 0, to=float("inf")),
        run=DATA,
        says=("bbox: expected 4 finite numbers",),
    ),
    Wrong(
        does="a number in a box that float32 does not have",
        edit=coco("annotations", 0, "bbox", 2, to=1e300),
        run=DATA,
        says=("of at most 1e+09",),
    ),
    Wrong(
        does="a number in a box that no float is",
        edit=coco("annotations", 0, "bbox", 2, to=10**400),
        run=DATA,
        says=("bbox: expected 4 finite numbers",),
    ),
    Wrong(
        does="an area in words",
        edit=coco("annotations", 0, "area", to="large"),
        run=DATA,
        says=('area: expected a finite number, but got "large"',),
    ),
    Wrong(does="an image id twice", edit=twice("images"), run=DATA, says=("image id 1 is used twice",)),
    Wrong(
        does="an annotation id twice", edit=twice("annotations"), run=DATA, says=("annotation id", "twice")
    ),
    Wrong(
        does="a category id twice", edit=twice("categories"), run=DATA, says=("category id 1 is used twice",)
    ),
    Wrong(
        does="an annotation of no image",
        edit=coco("annotations", 0, "image_id", to=99),
        run=DATA,
        says=("image_id 99 is not in images",),
    ),
    Wrong(
        does="an annotation of no category",
        edit=coco("annotations", 0, "category_id", to=99),
        run=DATA,
        says=("category_id 99 is not in categories",),
    ),
    Wrong(
        does="other categories in the validation split",
        edit=both(
            coco("categories", to=[{"id": 5, "name": "x"}], path=VAL), coco("annotations", to=[], path=VAL)
        ),
        run=DATA,
        says=("the training split's classes: expected class 'ellipse' (id 1), but got 'x' (id 5)",),
    ),
    Wrong(
        does="other names in the validation split",
        edit=coco("categories", 0, "name", to="square", path=VAL),
        run=DATA,
        says=("expected class 'ellipse' (id 1), but got 'square' (id 1)",),
    ),
    Wrong(
        does="boxes as shares of the image",
        edit=boxes(lambda box: [side / 100 for side in box]),
        run=DATA,
        says=("no number in them is above 1", "multiply them"),
    ),
    Wrong(
        does="boxes as corners",
        edit=boxes(lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]]),
        run=DATA,
        says=("if they were x1, y1, x2, y2",),
    ),
    Wrong(
        does="crowds alone",
        edit=each("annotations", iscrowd=1),
        run=DATA,
        says=("expected objects to train on, but of", "all are left out", "crowds (iscrowd)"),
    ),
    Wrong(
        does="a flag in words",
        edit=each("annotations", iscrowd="0"),
        run=DATA,
        says=('iscrowd: expected 0 or 1, but got "0"',),
    ),
    Wrong(does="nothing to train on", edit=coco("images", to=[]), run=DATA, says=("is not in images",)),
    Wrong(
        does="images without a box",
        edit=both(coco("annotations", to=[]), params(DATA, "keep_empty_images", to=False)),
        run=DATA,
        says=("expected images to train on, but there are none",),
    ),
]

PLACES = [
    Wrong(
        does="a file name that climbs",
        edit=coco("images", 0, "file_name", to="../val/a.bmp"),
        run=DATA,
        says=("expected file_name as a path inside the image folder, but got '../val/a.bmp'",),
    ),
    Wrong(
        does="an absolute file name",
        edit=coco("images", 0, "file_name", to="/etc/passwd"),
        run=DATA,
        says=("inside the image folder, but got '/etc/passwd'",),
    ),
    Wrong(
        does="a file name of Windows",
        edit=coco("images", 0, "file_name", to="..\\a.bmp"),
        run=DATA,
        says=("inside the image folder",),
    ),
    Wrong(
        does="an empty file name",
        edit=coco("images", 0, "file_name", to=""),
        run=DATA,
        says=("inside the image folder, but got ''",),
    ),
    Wrong(
        does="a file name with a NUL",
        edit=coco("images", 0, "file_name", to="a\0.bmp"),
        run=DATA,
        says=("inside the image folder",),
    ),
    Wrong(
        does="a file name of two lines",
        edit=coco("images", 7, "file_name", to="a\nerror: all is well\x1b[2J.bmp"),
        run=DATA,
        says=("a\\nerror: all is well\\x1b[2J.bmp",),
    ),
    Wrong(
        does="an image that is missing",
        edit=removed(LAST_IMAGE),
        run=DATA,
        says=("expected 8 images that the annotations name, but 1 are not there", "000000000008.bmp"),
    ),
    Wrong(
        does="a dataset that is nowhere",
        edit=params(DATA, "coco", "root", to="nowhere"),
        run=DATA,
        says=("nowhere: expected the folder of a dataset, but there is none; link it there",),
    ),
    Wrong(
        does="a dataset that is a file",
        edit=params(DATA, "coco", "root", to="params.yaml"),
        run=DATA,
        says=("params.yaml: expected the folder of a dataset",),
    ),
    Wrong(
        does="datasets that lie elsewhere",
        environment={"LDP_DATASETS": "/nowhere"},
        run=DATA,
        says=("/nowhere/tiny: expected the folder of a dataset",),
    ),
    Wrong(
        does="datasets that lie elsewhere when the teacher runs",
        environment={"LDP_DATASETS": "/nowhere"},
        run=CACHE,
        says=("/nowhere/tiny/train/", "expected an image, but there is none"),
    ),
]

ANOTHER = "expected the image that prepare_data has seen"

IMAGES = [
    *(
        Wrong(does=f"another image in {stage}", edit=image(path, "BMP", inverted), run=stage, says=(ANOTHER,))
        for stage, path in (
            (TEACHER, LAST_IMAGE),
            (CACHE, LAST_IMAGE),
            ("train_student ld", LAST_IMAGE),
            ("evaluate ld", VAL_IMAGE),
        )
    ),
    Wrong(does="a cut image", edit=cut(LAST_IMAGE, 900), run=CACHE, says=("000000000008.bmp", ANOTHER)),
    Wrong(does="an empty image", edit=written(LAST_IMAGE, b""), run=DATA, says=("cannot be read as any of",)),
    Wrong(
        does="a text as an image",
        edit=written(VAL_IMAGE, "hello"),
        run="evaluate ld",
        says=("000001000001.bmp: expected an image, but it cannot be read as any of",),
    ),
    Wrong(
        does="an image that is missing when it is read",
        edit=removed(LAST_IMAGE),
        run="train_student ld",
        says=("000000000008.bmp: expected an image, but there is none",),
    ),
    Wrong(does="a bomb", edit=image(LAST_IMAGE, "PNG", huge), run=DATA, says=("but got (20000, 20000)",)),
    Wrong(does="an animated GIF", edit=moving(LAST_IMAGE, "GIF"), run=DATA, says=("but got 2 frames",)),
    Wrong(does="an animated PNG", edit=moving(VAL_IMAGE, "PNG"), run=DATA, says=("but got 2 frames",)),
    Wrong(
        does="an image of another size",
        edit=image(LAST_IMAGE, "BMP", lambda old: old.resize((20, 10))),
        run=DATA,
        says=("expected an image of (height, width) =", "but got (10, 20)"),
    ),
]


@pytest.mark.parametrize("wrong", ANNOTATIONS + PLACES + IMAGES, ids=lambda wrong: wrong.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, wrong: Wrong) -> None:
    require_one_clear_line(wrong, own_project)


@pytest.mark.usefixtures("own_project")
def test_boxes_without_a_size_or_outside_the_image_are_legal_and_not_trained_on() -> None:
    """As in mmdetection; COCO itself has them. With them in both splits, every stage still runs."""
    before = read_manifest(FOLDER.manifest("train"))
    boxes = [[5, 5, 0, 9], [5, 5, 9, -3], [5, 5, 0.5, 9], [-50, 5, 9, 9], [900, 5, 9, 9], [5, 5, -4, -4]]
    for path in (TRAIN, VAL):
        content = json.loads(path.read_text())
        record = content["images"][0]["id"]
        content["annotations"] += [
            {"id": 9000 + number, "image_id": record, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            for number, box in enumerate(boxes)
        ]
        path.write_text(json.dumps(content))
    for stage in (DATA, TEACHER, "evaluate teacher", CACHE):
        assert call(stage).code == 0
    after = read_manifest(FOLDER.manifest("train"))
    assert len(after.images[0].annotations) == len(before.images[0].annotations) + len(boxes)
    old, new = (training_boxes(manifest.images[0], manifest.labels) for manifest in (before, after))
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
    content = json.loads(TRAIN.read_text())
    rows = content["annotations"]
    for row, flag in ((rows[0], "iscrowd"), (rows[1], "ignore"), (rows[2], "ignore")):
        row[flag] = 1
    content["categories"][0]["name"] = content["categories"][1]["name"]
    for path in (TRAIN, VAL):
        path.write_text(json.dumps({**json.loads(path.read_text()), "categories": content["categories"]}))
    TRAIN.write_text(json.dumps(content))
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
def test_a_split_of_which_most_is_not_trained_on_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    content = json.loads(TRAIN.read_text())
    for row in content["annotations"][1:]:
        row["iscrowd"] = 1
    TRAIN.write_text(json.dumps(content))
    assert call(DATA).code == 0
    assert "train: WARNING: most objects are not trained on" in caplog.text
    assert "val: WARNING" not in caplog.text
