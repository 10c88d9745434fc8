"""Which validation images and detections are shown, and what is said of them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from pipeline.core.paths import RunPaths
from pipeline.evaluation.detect import write_results
from pipeline.report import detections
from pipeline.report.detections import ShownImage, choose_images, describe, image_picture, show_images
from pipeline.views.classes import Category
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest


def image_with(count: int, image_id: int = 1) -> ImageRecord:
    objects = tuple(
        Annotation(number, 1, 20.0 * number, 0, 10, 10, area=100, iscrowd=False) for number in range(count)
    )
    return ImageRecord(image_id=image_id, file_name="x.png", height=100, width=100, annotations=objects)


def manifest(*counts: int, classes: int = 1) -> Manifest:
    """Images of so many objects each."""
    records = [image_with(count, image_id) for image_id, count in enumerate(counts)]
    categories = tuple(Category(category_id=number + 1, name="cup") for number in range(classes))
    return Manifest(root="", folder="", categories=categories, images=ImageTable.of(records))


def detection(x: float, score: float, category_id: int = 1) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category_id, "bbox": [x, 0, 10, 10], "score": score}


def shown(count: int, *results: dict[str, Any]) -> ShownImage:
    pixels = torch.zeros(3, 100, 100, dtype=torch.uint8)
    return ShownImage(objects=image_with(count).annotations, pixels=pixels, detections={"ld": results})


def test_as_many_detections_are_shown_as_there_are_objects(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = RunPaths(tmp_path)
    write_results([detection(x, x / 100) for x in (5, 9, 1, 7)], folder.evaluation("ld") / "detections.json")
    monkeypatch.setattr(detections, "read_image", lambda *_: torch.zeros(3, 100, 100, dtype=torch.uint8))
    images = show_images(manifest(0, 3), folder, ["ld"])
    assert [[row["score"] for row in image.detections["ld"]] for image in images] == [[0.09, 0.07, 0.05]]


@pytest.mark.parametrize(
    ("image", "caption"),
    [
        (shown(2), "0 of 2 found"),
        (shown(2, detection(0, 0.1)), "1 of 2 found"),
        (shown(2, detection(60, 0.9)), "0 of 2 found"),
        (shown(0, detection(60, 0.9)), "0 of 0 found"),
        (shown(2, detection(0, 0.9), detection(0, 0.8)), "1 of 2 found"),
        (shown(2, detection(0, 0.9, category_id=2)), "0 of 2 found"),
        # 8 of 10 px overlap, of 12; of the next 6 of 14.
        (shown(2, detection(2, 0.9), detection(24, 0.8)), "1 of 2 found"),
    ],
)
def test_caption_says_what_was_found(image: ShownImage, caption: str) -> None:
    assert describe(image, "ld") == caption


@pytest.mark.parametrize(("classes", "label"), [(10, "0.50"), (11, "cup 0.50")])
def test_classes_are_named_where_their_colors_repeat(
    monkeypatch: pytest.MonkeyPatch, classes: int, label: str
) -> None:
    axes = Figure().subplots()
    monkeypatch.setattr(detections, "draw_picture", lambda _size, _shown, _label, plot: plot(axes, 2.0))
    image_picture(shown(1, detection(20, 0.5, category_id=7)), "ld", manifest(classes=classes), "")
    assert [text.get_text() for text in axes.texts] == [label]


def test_images_of_several_objects_are_preferred() -> None:
    assert [record.image_id for record in choose_images(manifest(1, 4, 0, 5, 1))] == [1, 3]
    assert [record.image_id for record in choose_images(manifest(0, 1))] == [0, 1]
    assert choose_images(manifest()) == []
