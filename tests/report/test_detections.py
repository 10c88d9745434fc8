"""Which validation images and detections are shown, and what is said of them."""

import pytest
import torch
from matplotlib.figure import Figure

from pipeline.report.detections import (
    ShownImage,
    choose_colors,
    choose_images,
    describe,
    draw_image,
    match,
    shown_detections,
)
from pipeline.views.classes import Category
from pipeline.views.image_table import Annotation, ImageRecord, ImageTable
from pipeline.views.manifest import Manifest


def image_with(count: int, image_id: int = 1) -> ImageRecord:
    objects = tuple(
        Annotation(number, 1, 20.0 * number, 0, 10, 10, area=100, iscrowd=False) for number in range(count)
    )
    return ImageRecord(image_id=image_id, file_name="x.png", height=100, width=100, annotations=objects)


def detection(x: float, score: float, category_id: int = 1) -> dict[str, object]:
    return {"image_id": 1, "category_id": category_id, "bbox": [x, 0, 10, 10], "score": score}


def shown(count: int, *results: dict[str, object]) -> ShownImage:
    pixels = torch.zeros(3, 100, 100, dtype=torch.uint8)
    return ShownImage(objects=image_with(count).annotations, pixels=pixels, detections={"ld": results})


def test_best_few_are_shown_where_nothing_is_confident() -> None:
    weak = [detection(0, score / 100) for score in (5, 9, 1, 7)]
    assert [result["score"] for result in shown_detections(weak)] == [0.09, 0.07, 0.05]
    assert [result["score"] for result in shown_detections([*weak, detection(0, 0.8)])] == [0.8]
    assert shown_detections([]) == []


def test_caption_says_what_was_found() -> None:
    assert describe(shown(2), "ld") == "no detection"
    assert describe(shown(2, detection(0, 0.1)), "ld") == "best score 0.10, 1 of 2 found, mean IoU 1.00"
    assert describe(shown(2, detection(60, 0.9)), "ld") == "0 of 2 found"
    assert describe(shown(0, detection(60, 0.9)), "ld") == "0 of 0 found"


def test_each_object_is_found_once_and_by_its_class() -> None:
    objects = image_with(2).annotations
    assert match(objects, [detection(0, 0.9), detection(0, 0.8)]) == [1.0]
    assert match(objects, [detection(0, 0.9, category_id=2)]) == []
    # 8 of 10 px overlap, of 12: the second detection must take the second object.
    assert match(objects, [detection(2, 0.9), detection(20, 0.8)]) == pytest.approx([8 / 12, 1.0])


def test_classes_are_named_where_their_colors_repeat() -> None:
    image = shown(1, detection(20, 0.5, category_id=7))
    for count, label in ((2, "0.50"), (11, "cup 0.50")):
        axes = Figure().subplots()
        draw_image(axes, image, "ld", {7: "cup"}, dict.fromkeys(range(1, count + 7), "red"), 2.0)
        assert [text.get_text() for text in axes.texts] == [label if count > 10 else "0.50"]


def test_a_class_has_one_color_in_all_images() -> None:
    colors = choose_colors([shown(1, detection(0, 0.5, category_id=9)), shown(2)])
    assert sorted(colors) == [1, 9]
    assert len(set(colors.values())) == 2
    assert choose_colors([]) == {}


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
