"""PASCAL VOC's XML becomes a dataset that is trained on and evaluated as mmdetection does."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline.datasets.coco import read_coco

SCRIPT = Path(__file__).parents[1] / "recipes/voc_to_coco.py"
OBJECT = (
    "<object><name>{}</name>{}<bndbox><ymin>{}</ymin><xmin>{}</xmin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
    "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
)


def convert(devkit: Path, start: str = "") -> "subprocess.CompletedProcess[str]":
    """Convert three images, before the second of which there is ``start``."""
    dog = OBJECT.format("dog", "<difficult>0</difficult>", 20, 10, "45.7", 60)
    cars = [OBJECT.format("car", f"<difficult>{flag}</difficult>", 1, 1, 500, 375) for flag in (0, 1)]
    monitor = OBJECT.format("tvmonitor", "", 1, 1, 9, 9)
    size = "<size><width>500</width><height>375</height><depth>3</depth></size>"
    for year, split, name, objects in (
        ("VOC2007", "trainval", "000001", "".join([dog, *cars])),
        ("VOC2012", "trainval", "2008_000002", cars[1]),
        ("VOC2007", "test", "000009", monitor),
    ):
        for folder in ("Annotations", "ImageSets/Main"):
            (devkit / year / folder).mkdir(parents=True, exist_ok=True)
        content = f"{start if year == 'VOC2012' else ''}<annotation>{size}{objects}</annotation>"
        (devkit / year / f"Annotations/{name}.xml").write_text(content)
        (devkit / year / f"ImageSets/Main/{split}.txt").write_text(f"{name}\n")
    return subprocess.run([sys.executable, SCRIPT, devkit], capture_output=True, text=True, check=False)


def test_boxes_count_from_zero_and_difficult_objects_are_crowds(tmp_path: Path) -> None:
    assert convert(tmp_path).returncode == 0
    train = read_coco(tmp_path / "annotations/voc0712_trainval.json", str(tmp_path), ".")
    assert len(train.categories) == 20
    first, second = train.images
    assert first.file_name == "VOC2007/JPEGImages/000001.jpg"
    assert second.file_name == "VOC2012/JPEGImages/2008_000002.jpg"
    boxes = train.training_boxes(first.image_id)
    np.testing.assert_array_equal(boxes.boxes_xyxy, [[9, 19, 44, 59], [0, 0, 499, 374]])
    assert [train.categories[label].name for label in boxes.labels] == ["dog", "car"]
    assert train.drop_reason.tolist()[len(first.annotations) :] == [0], "a crowd"
    test = json.loads((tmp_path / "annotations/voc07_test.json").read_text())
    assert [each["category_id"] for each in test["annotations"]] == [20]


def test_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    failed = convert(tmp_path, bomb)
    assert failed.stderr == "VOC2012/Annotations/2008_000002.xml: expected plain XML, but it has a <!\n"
    assert failed.returncode == 1
