"""Datasets that are odd and legal: every stage runs, and what is worth a word is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from finished import FOLDER, call
from project import edit_params, edited_json
from store_cases import content_of
from wrong_input import LAST_IMAGE, TRAIN, VAL, edit_rows

from pipeline.views.manifest import read_manifest
from recipes import DATASET, set_value

pytestmark = pytest.mark.usefixtures("own_project")


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
    for stage in ("prepare_data", "prepare_teacher", "evaluate teacher", "cache_teacher"):
        assert call(stage).code == 0
    after = read_manifest(FOLDER.manifest("train"))
    assert len(after.images.record(0).annotations) == len(before.images.record(0).annotations) + len(boxes)
    old, new = (manifest.training_boxes(manifest.images.image_id[0]) for manifest in (before, after))
    np.testing.assert_array_equal(old.boxes_xyxy, new.boxes_xyxy)
    np.testing.assert_array_equal(old.labels, new.labels)


@pytest.mark.parametrize("linked", [DATASET / "train", LAST_IMAGE])
def test_images_and_their_folder_may_be_links(linked: Path) -> None:
    """DVC, git-annex and hubs leave each image as a link into a cache; a folder may be what DVC watches."""
    linked.rename("elsewhere")
    linked.symlink_to(Path("elsewhere").absolute())
    if linked.is_dir():
        edit_params(Path(), lambda params: set_value(params, ("prepare_data", "source"), str(linked)))
    manifest = FOLDER.manifest("train").read_bytes()
    assert call("prepare_data").code == 0
    assert FOLDER.manifest("train").read_bytes() == manifest


def test_bad_images_leave_the_finished_partitions_and_the_next_run_uses_them() -> None:
    """All partitions but one are finished when an image proves bad: once it is mended, that one runs."""
    store, good = content_of(FOLDER.store), LAST_IMAGE.read_bytes()
    LAST_IMAGE.write_bytes(good[:900])
    assert call("cache_teacher").code == 1
    LAST_IMAGE.write_bytes(good)
    assert call("cache_teacher").code == 0
    assert json.loads(FOLDER.cache_timing.read_text())["computed_views"] == 4
    assert content_of(FOLDER.store) == store


def test_the_summary_counts_what_was_read(caplog: pytest.LogCaptureFixture) -> None:
    with edited_json(TRAIN) as train, edited_json(VAL) as val:
        train["annotations"] = rows = [row for row in train["annotations"] if row["category_id"] != 4]
        for row, flag in ((rows[0], "iscrowd"), (rows[1], "ignore"), (rows[2], "ignore")):
            row[flag] = 1
        for split in (train, val):
            split["categories"][0]["name"] = split["categories"][1]["name"]
    caplog.set_level("INFO")
    assert call("prepare_data").code == 0
    summary = json.loads(FOLDER.metrics("data/train").read_text())
    assert summary["images"] == 8
    assert summary["objects"] == len(rows) == summary["trained_on"] + 3
    assert (summary["crowd"], summary["ignore"]) == (1, 2)
    for words in (
        f"train: {len(rows)} objects; trained on are {len(rows) - 3}",
        "1 crowds (iscrowd), 2 to be ignored (ignore)",
        "train: WARNING: several classes have the same name: rectangle",
        "val: WARNING: classes without an object to train on: triangle",
        *("rectangle (1) ", "rectangle (3) "),
    ):
        assert words in caplog.text


def test_objects_too_small_for_any_point_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    edit_rows(Path(), "annotations", lambda row: {"bbox": [*row["bbox"][:2], 2, 2]})
    assert call("prepare_data").code == call("cache_teacher").code == 0
    assert "for the 30 objects of all views: objects smaller than a cell get none" in caplog.text
