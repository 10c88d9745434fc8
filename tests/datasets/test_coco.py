"""COCO annotation files: the real ones are read, the wrong ones are named."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import DatasetError
from pipeline.datasets.coco import read_coco
from pipeline.views.manifest import keep_trainable, read_manifest, training_boxes, write_manifest


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
    truth = training_boxes(manifest.image(9), manifest.labels)
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
    assert read_manifest(tmp_path / "m" / "train.json") == manifest


def test_the_bytes_of_a_manifest_are_what_they_were(tmp_path: Path) -> None:
    """Stores name their digest: another byte, and every store would be written anew."""
    categories = [{"id": 2, "name": "ä"}]
    boxes = [
        box(id=2**62, category_id=2, bbox=[1, -0.0, 0.1, 1e-7], iscrowd=1),
        box(id=3, category_id=2, bbox=[1.5, 2.25, 3, 4], area=7),
    ]
    content = coco(categories=categories, images=image() + image(id=4), annotations=boxes[0] + boxes[1])
    write_manifest(read_coco(written(tmp_path, content), "root", "images"), tmp_path / "m.json")
    digest = hashlib.sha256((tmp_path / "instances.json").read_bytes()).hexdigest()
    assert (tmp_path / "m.json").read_text() == (
        '{\n "root": "root",\n "folder": "images",\n'
        f' "annotations_sha256": "{digest}",\n'
        ' "categories": [\n  [\n   2,\n   "\\u00e4"\n  ]\n ],\n "images": [\n'
        '{"id": 4, "file_name": "a.jpg", "height": 9, "width": 9, "annotations": []},\n'
        '{"id": 9, "file_name": "a.jpg", "height": 9, "width": 9, "annotations": '
        "[[3, 2, [1.5, 2.25, 3.0, 4.0], 7.0, 0], "
        "[4611686018427387904, 2, [1.0, -0.0, 0.1, 1e-07], 1e-08, 1]]}\n]}\n"
    )


def test_a_dataset_without_images_has_a_manifest_too(tmp_path: Path) -> None:
    empty = read_coco(written(tmp_path, coco(images=[], annotations=[])), "root", "images")
    write_manifest(empty, tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text().endswith(' "images": [\n\n]}\n')
    assert read_manifest(tmp_path / "m.json") == empty


@pytest.mark.parametrize("images", ["{}", "3", "[3]", '[{"id": 1}]'])
def test_a_manifest_without_a_list_of_images_is_damaged(tmp_path: Path, images: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(
        f'{{"root": "", "folder": "", "annotations_sha256": "", "categories": [], "images": {images}}}'
    )
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
        ([], "expected COCO detection JSON, but got a list"),
        ({"images": []}, "with a list 'categories', but there is none"),
        (coco(images=image(height="9")), r"images\[0\].height: expected int, but got '9'"),
        (coco(images=[3]), r"images\[0\].id: expected int, but got 3"),
        (coco(images=image() * 2, annotations=[]), "image id 9 is used twice"),
        (coco(images=image(file_name="../a.jpg"), annotations=[]), "a path inside the image folder"),
        (coco(images=image(file_name="/etc/a.jpg"), annotations=[]), "a path inside the image folder"),
        (coco(annotations=box(image_id=8)), "annotation 1: image_id 8 is not in images"),
        (coco(annotations=box(category_id=8)), "annotation 1: category_id 8 is not in categories"),
        (coco(annotations=box(bbox=[1, 2, 3])), "expected bbox as 4 finite numbers"),
        (coco(annotations=box(bbox=[1, 2, 3, float("nan")])), "expected bbox as 4 finite numbers"),
        (coco(annotations=box() * 2), "annotation id 1 is used twice"),
        (coco(annotations=box() + box(id=2, bbox=3)), r"annotations\[1\].bbox: expected list, but got 3"),
        (coco(annotations=3), "with a list 'annotations', but there is none"),
        ('{"images": [], "images": []}', "the key 'images' stands there twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read_coco(written(tmp_path, content), "root", "images")
    assert "instances.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.json: expected an annotation file"):
        read_coco(tmp_path / "none.json", "root", "images")
