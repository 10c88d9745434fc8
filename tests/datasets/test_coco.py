"""COCO annotation files: the real ones are read, the wrong ones are named."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DatasetError
from pipeline.datasets.coco import read_coco
from pipeline.views.manifest import keep_trainable, read_manifest, write_manifest


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


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_images_and_categories_are_ordered_by_id(tmp_path: Path) -> None:
    manifest = read_coco(written(tmp_path, coco()), "root", "images")
    assert [record.image_id for record in manifest.images] == [3, 5, 9]
    assert manifest.labels == {2: 0, 7: 1}
    assert manifest.image_path(manifest.images[0]) == Path("root/images/sub/three.jpg")


def test_trained_on_are_boxes_that_are_no_crowd_and_have_a_size_inside_the_image(tmp_path: Path) -> None:
    manifest = read_coco(written(tmp_path, coco()), "root", "images")
    truth = manifest.training_boxes(9)
    np.testing.assert_array_equal(truth.boxes_xyxy, np.float32([[1, 2, 11, 22]]))
    np.testing.assert_array_equal(truth.labels, [1])


def test_small_images_are_not_trained_on_and_empty_ones_only_if_asked_for(tmp_path: Path) -> None:
    manifest = read_coco(written(tmp_path, coco()), "root", "images")
    with_empty = keep_trainable(manifest, keep_empty=True)
    assert [record.image_id for record in with_empty.images] == [3, 9]
    assert [record.image_id for record in keep_trainable(manifest, keep_empty=False).images] == [9]


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    manifest = read_coco(written(tmp_path, coco()), "root", "images")
    write_manifest(manifest, tmp_path / "m" / "train.json")
    read = read_manifest(tmp_path / "m" / "train.json")
    assert list(read.images) == list(manifest.images)
    assert replace(read, images=manifest.images) == manifest


def test_the_bytes_of_a_manifest_are_what_they_were(tmp_path: Path) -> None:
    """DVC compares them: another byte, and everything would run anew."""
    categories = [{"id": 2, "name": "ä"}]
    boxes = [
        box(id=2**62, category_id=2, bbox=[1, -0.0, 0.1, 1e-7], iscrowd=1),
        box(id=3, category_id=2, bbox=[1.5, 2.25, 3, 4], area=7, ignore=1),
    ]
    images = image() + image(id=4, file_name="b.jpg")
    content = coco(categories=categories, images=images, annotations=boxes[0] + boxes[1])
    write_manifest(read_coco(written(tmp_path, content), "root", "images"), tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text() == (
        '{"root":"root","folder":"images","annotations":"","turned_images":0,"categories":[[2,"ä"]],'
        '"images":[\n'
        '{"id":4,"file_name":"b.jpg","height":9,"width":9,"sha256":"","annotations":[]},\n'
        '{"id":9,"file_name":"a.jpg","height":9,"width":9,"sha256":"","annotations":'
        "[[3,2,1.5,2.25,3.0,4.0,7.0,false,true],"
        "[4611686018427387904,2,1.0,-0.0,0.1,1e-7,1e-8,true,false]]}\n]}\n"
    )


def test_a_dataset_without_images_has_a_manifest_too(tmp_path: Path) -> None:
    empty = read_coco(written(tmp_path, coco(images=[], annotations=[])), "root", "images")
    write_manifest(empty, tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text().endswith('"images":[\n\n]}\n')
    read = read_manifest(tmp_path / "m.json")
    assert not list(read.images)
    assert replace(read, images=empty.images) == empty


@pytest.mark.parametrize("images", ["{}", "3", "[3]", '[{"id": 1}]'])
def test_a_manifest_without_a_list_of_images_is_damaged(tmp_path: Path, images: str) -> None:
    path = tmp_path / "m.json"
    head = '{"root": "", "folder": "", "annotations": "", "turned_images": 0, "categories": []'
    path.write_text(f'{head}, "images": {images}}}')
    with pytest.raises(DatasetError, match="it is damaged; run the stage prepare_data again"):
        read_manifest(path)


def test_a_missing_manifest_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="run the stage prepare_data first"):
        read_manifest(tmp_path / "train.json")


def image(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 9, "file_name": "a.jpg", "height": 9, "width": 9} | changes]


def box(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4]} | changes]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected COCO detection JSON, but it is not JSON"),
        ([], r"expected COCO detection JSON with categories, images and annotations, but got \[\]"),
        ({"images": []}, "with a list 'categories', but got nothing"),
        (coco(images=image(height="9")), r'images\[0\] \(id 9\).height: expected an integer .*, but got "9"'),
        (coco(images=[3]), r"images\[0\]: expected an object, but got 3"),
        (coco(images=[{"id": 1}]), r"images\[0\] \(id 1\).file_name: expected a text, but got nothing"),
        (coco(images=image() * 2, annotations=[]), "image id 9 is used twice"),
        (coco(images=image(file_name="../a.jpg"), annotations=[]), "a path inside the image folder"),
        (coco(images=image(file_name="/etc/a.jpg"), annotations=[]), "a path inside the image folder"),
        (
            coco(images=image(file_name="a" * 10**6), annotations=[]),
            "a path inside the image folder, but got 'a",
        ),
        (coco(images=image() + image(id=4), annotations=[]), "'a.jpg' is that of the ids 4 and 9"),
        (coco(images=image() + image(id=4, file_name="./a.jpg"), annotations=[]), "of the ids 4 and 9"),
        (coco(images=image(file_name="é") + image(id=4, file_name="e\u0301"), annotations=[]), "4 and 9"),
        (coco(images=image(id=2**63 - 1), annotations=[]), "expected an integer of 64 bits"),
        (coco(categories=[{"id": 7, "name": "b"}] * 2), "category id 7 is used twice"),
        (coco(annotations=box(image_id=8)), "annotation 1: image_id 8 is not in images"),
        (coco(annotations=box(category_id=8)), "annotation 1: category_id 8 is not in categories"),
        (coco(annotations=box(bbox=[1, 2, 3])), r"expected 4 finite numbers.*, but got \[1, 2, 3\]"),
        (coco(annotations=box(bbox=[1, 2, 3, float("nan")])), "expected 4 finite numbers"),
        (coco(annotations=box(bbox=[1, 2, 3, 10**400])), "expected 4 finite numbers"),
        (coco(annotations=box() * 2), "annotation id 1 is used twice"),
        (coco(annotations=box() + box(id=2, bbox=3)), r"annotations\[1\] \(id 2\).bbox: .* but got 3"),
        (coco(annotations=box(iscrowd="0")), r'\(id 1\).iscrowd: expected 0 or 1, but got "0"'),
        (coco(annotations=box(ignore=2)), r"\(id 1\).ignore: expected 0 or 1, but got 2"),
        (coco(annotations=3), "with a list 'annotations', but got 3"),
        ('{"images": [], "images": []}', "the key 'images' is there twice"),
        ("[" * 200_000, "it is not JSON"),
        (coco(images=[{"id": "x" * 10**6}]), r"but got \"x{199} \.\.\."),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read_coco(written(tmp_path, content), "root", "images")
    assert "instances.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: expected an annotation file"):
        read_coco(tmp_path / "none.json", "root", "images")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco(categories=[{"id": 7, "name": "猫"}, {"id": 2, "name": "a"}])), encoding)
    assert [category.name for category in read_coco(path, "root", "images").categories] == ["a", "猫"]


def test_what_is_not_used_may_be_anything(tmp_path: Path) -> None:
    """Exports of tables have NaN where there is nothing; outlines come as lists and as run lengths."""
    rows = [
        *box(segmentation={"counts": "a", "size": [9, 9]}, score=float("nan"), iscrowd=None),
        *box(id=2, segmentation=[[1, 2, float("inf")]], area=float("nan"), iscrowd=False),
    ]
    content = coco(images=image(license=None), annotations=rows, info={"images": [1]}, licenses="none")
    (record,) = read_coco(written(tmp_path, content), "root", "images").images
    assert [annotation.area for annotation in record.annotations] == [12, 12]
    assert not any(annotation.iscrowd for annotation in record.annotations)


@pytest.mark.parametrize("area", [0, -1, None])
def test_an_area_that_was_not_measured_is_that_of_the_box(tmp_path: Path, area: float | None) -> None:
    content = coco(images=image(), annotations=box(area=area))
    manifest = read_coco(written(tmp_path, content), "root", "images")
    assert manifest.images[0].annotations[0].area == 12
    assert len(manifest.training_boxes(manifest.images[0].image_id).labels) == 1


@pytest.mark.parametrize("flag", [1, True])
@pytest.mark.parametrize("name", ["iscrowd", "ignore"])
def test_flagged_objects_are_kept_and_not_trained_on(tmp_path: Path, name: str, flag: object) -> None:
    content = coco(images=image(), annotations=box(**{name: flag}))
    manifest = read_coco(written(tmp_path, content), "root", "images")
    assert getattr(manifest.images[0].annotations[0], name)
    assert len(manifest.training_boxes(manifest.images[0].image_id).labels) == 0


def identity(tmp_path: Path, content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return replace(read_coco(written(tmp_path, content), "root", "images"), **changes).identity()


def test_identity_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    """A date, an order, an area or a crowd changes nothing; a box, a class or its name does."""
    start = identity(tmp_path, coco())
    reordered = coco(info={"date_created": "today"}, annotations=coco()["annotations"][::-1])
    reordered["annotations"][-1]["area"] = 151.0
    reordered["annotations"][-2]["bbox"] = [0, 0, 9, 9]
    assert identity(tmp_path, reordered) == start
    moved, renamed = coco(), coco()
    moved["annotations"][0]["bbox"] = [1, 2, 10, 21]
    renamed["categories"][0]["name"] = "c"
    for field, changed in (("boxes", moved), ("class_names", renamed)):
        other = identity(tmp_path, changed)
        assert {name for name in start if other[name] != start[name]} == {field}


def test_stores_of_older_formats_are_known_by_the_annotation_file(tmp_path: Path) -> None:
    manifest = read_coco(written(tmp_path, coco()), str(tmp_path), "images")
    manifest = replace(manifest, annotations="instances.json")
    digest = hashlib.sha256((tmp_path / "instances.json").read_bytes()).hexdigest()
    older = {"annotations": digest, "classes": [2, 7], "images": manifest.images_sha256}
    assert manifest.identity_in(older) == older
    assert "pixels" in replace(manifest, turned_images=1).identity_in(older)
    assert manifest.identity_in(manifest.identity()) == manifest.identity()
