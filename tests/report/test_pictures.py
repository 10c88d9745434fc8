import numpy as np
import pytest
import torch

from pipeline.report.pictures import PALETTE, Picture, class_colors, crop, embed_picture, place_marks
from pipeline.report.regions import dots_path, shades, squares_path
from pipeline.report.strips import box_iou, choose_images, describe, match, shown_detections
from pipeline.views.image_table import Annotation, ImageRecord, ImageTable
from pipeline.views.manifest import Category, Manifest

PICTURE = Picture(uri="", width=100, height=100, scale=1)


def image_with(count: int, image_id: int = 1) -> ImageRecord:
    objects = tuple(
        Annotation(
            annotation_id=number, category_id=1, box_xywh=(20.0 * number, 0, 10, 10), area=100, iscrowd=False
        )
        for number in range(count)
    )
    return ImageRecord(image_id=image_id, file_name="x.png", height=100, width=100, annotations=objects)


def detection(x: float, score: float, category_id: int = 1) -> dict[str, object]:
    return {"image_id": 1, "category_id": category_id, "bbox": [x, 0, 10, 10], "score": score}


def test_large_image_is_embedded_smaller_and_shown_in_its_ratio() -> None:
    picture = embed_picture(torch.zeros(3, 800, 1333, dtype=torch.uint8), shown=270)
    assert picture.uri.startswith("data:image/jpeg;base64,")
    assert (picture.width, round(picture.height)) == (270, 162)
    assert picture.scale == pytest.approx(270 / 1333)


def test_small_image_is_embedded_without_loss() -> None:
    assert embed_picture(torch.zeros(3, 96, 80, dtype=torch.uint8), shown=96).uri.startswith("data:image/png")


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (90, 95, 100, 100), (0, 0, 100, 100), (40, 40, 60, 50)])
def test_crop_holds_its_box_and_stays_inside(box: tuple[int, int, int, int]) -> None:
    pixels = torch.arange(3 * 100 * 100).reshape(3, 100, 100).to(torch.uint8)
    part, (left, top) = crop(pixels, np.array(box, np.float32), margin=0.35)
    assert left <= box[0]
    assert top <= box[1]
    assert left + part.shape[2] >= box[2]
    assert top + part.shape[1] >= box[3]
    assert torch.equal(
        part, pixels[:, int(top) : int(top) + part.shape[1], int(left) : int(left) + part.shape[2]]
    )


def test_labels_do_not_overlap_and_stay_inside() -> None:
    boxes = [(float(x), float(y), 60.0, 50.0) for x in (0, 5, 40) for y in (0, 3, 50)]
    marks = place_marks(boxes, ["#000"] * 9, ["0.50"] * 9, PICTURE)
    tags = [mark.tag for mark in marks if mark.tag]
    assert len(tags) > 3
    for left, top, width in tags:
        assert 0 <= left <= 100 - width
        assert 0 <= top <= 86
    for index, (left, top, width) in enumerate(tags):
        for other_left, other_top, other_width in tags[:index]:
            apart = left >= other_left + other_width or other_left >= left + width
            assert apart or abs(top - other_top) >= 14


def test_label_without_room_is_left_out() -> None:
    (mark,) = place_marks([(0, 0, 10, 10)], ["#000"], ["a very long name of a class"], PICTURE)
    assert mark.tag is None


def test_colors_differ_for_few_classes_and_repeat_for_many() -> None:
    assert len(set(class_colors([7, 3, 3, 1]).values())) == 3
    assert set(class_colors(range(80)).values()) == set(PALETTE)


def test_best_few_are_shown_where_nothing_is_confident() -> None:
    weak = [detection(0, score / 100) for score in (5, 9, 1, 7)]
    assert [result["score"] for result in shown_detections(weak)] == [0.09, 0.07, 0.05]
    assert [result["score"] for result in shown_detections([*weak, detection(0, 0.8)])] == [0.8]
    assert shown_detections([]) == []


def test_iou_by_hand() -> None:
    assert box_iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert box_iou((0, 0, 10, 10), (20, 20, 5, 5)) == 0
    assert box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


def test_object_is_found_once_and_by_its_class() -> None:
    objects = image_with(2).annotations
    assert match(objects, [detection(0, 0.9), detection(1, 0.8)]) == [1.0]
    assert match(objects, [detection(0, 0.9, category_id=2)]) == []
    assert match(objects, [detection(20, 0.9), detection(2, 0.8)]) == pytest.approx([1.0, 80 / 120])


def test_caption_says_what_was_found() -> None:
    record = image_with(2)
    assert describe(record, []) == "no detection"
    assert describe(record, [detection(0, 0.1)]) == "best score 0.10, 1 of 2 found, mean IoU 1.00"
    assert describe(record, [detection(60, 0.9)]) == "0 of 2 found"


def test_images_of_several_objects_are_preferred() -> None:
    def manifest(*counts: int) -> Manifest:
        records = tuple(image_with(count, image_id) for image_id, count in enumerate(counts))
        return Manifest(
            root="",
            folder="",
            categories=(Category(category_id=1, name="a"),),
            images=ImageTable.of(records),
        )

    assert [record.image_id for record in choose_images(manifest(1, 4, 0, 5, 1))] == [1, 3]
    assert [record.image_id for record in choose_images(manifest(0, 1, 0, 20))] == [1, 3]
    assert [record.image_id for record in choose_images(manifest(0, 0))] == [0, 1]
    assert choose_images(manifest()) == []


def test_region_paths_have_one_piece_a_point() -> None:
    xy = np.array([[0, 0], [8, 0], [8, 8]], np.float32)
    assert dots_path(xy) == "M0.0,0.0h0M8.0,0.0h0M8.0,8.0h0"
    assert squares_path(xy, 8).count("z") == 3
    found = shades(xy, np.array([0.01, 0.3, 1.0], np.float32), 8)
    assert [shade.opacity for shade in found] == sorted(shade.opacity for shade in found)
    assert sum(shade.path.count("z") for shade in found) == 3
