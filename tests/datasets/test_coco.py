"""COCO annotation files: the real ones are read, the wrong ones are named; manifests keep what was read.

Refusals that a stage shows are rows of ``tests/e2e/wrong_input.txt``.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DatasetError
from pipeline.datasets.coco import read_coco
from pipeline.views.manifest import Manifest, keep_trainable, read_manifest, write_manifest


def coco(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "categories": [{"id": 7, "name": "b"}, {"id": 2, "name": "a"}],
        "images": [
            {"id": 9, "file_name": "nine.jpg", "height": 40, "width": 60},
            {"id": 3, "file_name": "sub/three.jpg", "height": 50, "width": 50},
            {"id": 5, "file_name": "small.jpg", "height": 31, "width": 50},
        ],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [1, 2, 10, 20], "area": 150.0, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 2, "bbox": [0, 0, 60, 40], "area": 99.0, "iscrowd": 1},
            {"id": 3, "image_id": 9, "category_id": 2, "bbox": [5, 5, 0.5, 9], "area": 4.5, "iscrowd": 0},
            {"id": 4, "image_id": 9, "category_id": 2, "bbox": [70, 5, 9, 9], "area": 81.0, "iscrowd": 0},
            {"id": 5, "image_id": 5, "category_id": 2, "bbox": [1, 1, 9, 9], "area": 81.0, "iscrowd": 0},
        ],
    }
    return content | changes


def image(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 9, "file_name": "a.jpg", "height": 9, "width": 9} | changes]


def box(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4]} | changes]


def read(tmp_path: Path, content: Any, encoding: str = "utf-8", root: str = "root") -> Manifest:
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding)
    return read_coco(path, root, "images")


def test_what_is_read_is_ordered_by_id_and_trained_on_by_mmdetections_rules(tmp_path: Path) -> None:
    """No crowds, no boxes without a size inside the image, no small images, empty ones only as configured."""
    manifest = read(tmp_path, coco())
    assert manifest.images.image_id.tolist() == [3, 5, 9]
    assert manifest.labels == {2: 0, 7: 1}
    assert manifest.image_path(manifest.images.record(0)) == Path("root/images/sub/three.jpg")
    truth = manifest.training_boxes(9)
    np.testing.assert_array_equal(truth.boxes_xyxy, np.float32([[1, 2, 11, 22]]))
    np.testing.assert_array_equal(truth.labels, [1])
    kept = {empty: keep_trainable(manifest, keep_empty=empty).images.image_id for empty in (True, False)}
    assert (kept[True].tolist(), kept[False].tolist()) == ([3, 9], [9])


@pytest.mark.parametrize("content", [coco(), coco(images=[], annotations=[])])
def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path, content: dict[str, Any]) -> None:
    manifest, path = read(tmp_path, content), tmp_path / "m" / "train.json"
    write_manifest(manifest, path)
    again = read_manifest(path)
    assert list(again.images) == list(manifest.images)
    assert replace(again, images=manifest.images) == manifest


def test_the_bytes_of_a_manifest_are_what_they_were(tmp_path: Path) -> None:
    """DVC compares them: another byte, and everything would run anew."""
    boxes = [
        *box(id=2**62, category_id=2, bbox=[1, -0.0, 0.1, 1e-7], iscrowd=1),
        *box(id=3, category_id=2, bbox=[1.5, 2.25, 3, 4], area=7, ignore=1),
    ]
    images = image() + image(id=4, file_name="b.jpg")
    content = coco(categories=[{"id": 2, "name": "ä"}], images=images, annotations=boxes)
    write_manifest(read(tmp_path, content), tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text() == (
        '{"root":"root","folder":"images","annotations":"","turned_images":0,"categories":[[2,"ä"]],'
        '"images":[\n'
        '{"id":4,"file_name":"b.jpg","height":9,"width":9,"sha256":"","annotations":[]},\n'
        '{"id":9,"file_name":"a.jpg","height":9,"width":9,"sha256":"","annotations":'
        "[[3,2,1.5,2.25,3.0,4.0,7.0,false,true],"
        "[4611686018427387904,2,1.0,-0.0,0.1,1e-7,1e-8,true,false]]}\n]}\n"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(images=image(file_name="a" * 10**6), annotations=[]), "a path inside .* folder, but got 'a"),
        (coco(annotations=box(bbox=[1, 2, 3, 10**400])), r"bbox\[3\]: Number out of range, but got 10"),
        (coco(images=[{"id": "x" * 10**6}]), r"but got 'x+\.\.\.x+'"),
        ("[" * 200_000, "it is not JSON"),
    ],
)
def test_what_is_far_too_long_is_named_in_a_few_words(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(tmp_path, content)
    assert "instances.json" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json_are_read(tmp_path: Path, encoding: str) -> None:
    content = json.dumps(coco(categories=[{"id": 7, "name": "猫"}, {"id": 2, "name": "a"}]))
    assert [name for _, name in read(tmp_path, content, encoding).categories] == ["a", "猫"]


def test_what_is_not_used_may_be_anything(tmp_path: Path) -> None:
    """Exports of tables have NaN where there is nothing; outlines come as lists and as run lengths."""
    rows = [
        *box(segmentation={"counts": "a", "size": [9, 9]}, score=float("nan"), iscrowd=None),
        *box(id=2, segmentation=[[1, 2, float("inf")]], area=float("nan"), iscrowd=False),
    ]
    content = coco(images=image(license=None), annotations=rows, info={"images": [1]}, licenses="none")
    assert read(tmp_path, content).drop_reason.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("change", "read_as", "reason"),
    [
        *(({"area": area}, ("area", 12), -1) for area in (0, -1, None, float("nan"))),
        *(({"iscrowd": flag}, ("iscrowd", True), 0) for flag in (1, True)),
        *(({"ignore": flag}, ("ignore", True), 1) for flag in (1, True)),
    ],
)
def test_areas_are_measured_and_flagged_objects_are_kept_and_not_trained_on(
    tmp_path: Path, change: dict[str, Any], read_as: tuple[str, object], reason: int
) -> None:
    manifest = read(tmp_path, coco(images=image(), annotations=box(**change)))
    assert manifest.images.annotations[read_as[0]].tolist() == [read_as[1]]
    assert manifest.drop_reason.tolist() == [reason]


def test_identity_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    """A date, an order, an area or a crowd changes nothing; a box, a class or its name does."""
    start = read(tmp_path, coco()).identity()
    reordered = coco(info={"date_created": "today"}, annotations=coco()["annotations"][::-1])
    reordered["annotations"][-1]["area"] = 151.0
    reordered["annotations"][-2]["bbox"] = [0, 0, 9, 9]
    moved, renamed = coco(), coco()
    moved["annotations"][0]["bbox"] = [1, 2, 10, 21]
    renamed["categories"][0]["name"] = "c"
    for changed, fields in ((reordered, set()), (moved, {"boxes"}), (renamed, {"class_names"})):
        other = read(tmp_path, changed).identity()
        assert {name for name in start if other[name] != start[name]} == fields


def test_stores_of_older_formats_are_known_by_the_annotation_file(tmp_path: Path) -> None:
    manifest = replace(read(tmp_path, coco(), root=str(tmp_path)), annotations="instances.json")
    digest = hashlib.sha256((tmp_path / "instances.json").read_bytes()).hexdigest()
    older = {"annotations": digest, "classes": [2, 7], "images": manifest.identity()["images"]}
    assert manifest.identity_in(older) == older
    assert "pixels" in replace(manifest, turned_images=1).identity_in(older)
    assert manifest.identity_in(manifest.identity()) == manifest.identity()
