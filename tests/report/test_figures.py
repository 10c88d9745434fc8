"""Which validation images and detections are shown, and how they are labeled."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from pipeline.core.files import write_atomically
from pipeline.core.paths import RunPaths
from pipeline.report import figures
from pipeline.report.figures import TRUE, ShownImage, image_picture, show_images
from pipeline.views.classes import Category
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest


def image_with(count: int, image_id: int = 1) -> ImageRecord:
    objects = tuple(
        Annotation(number, 1, 20.0 * number, 0, 10, 10, area=100, iscrowd=False) for number in range(count)
    )
    return ImageRecord(image_id=image_id, file_name="x.png", height=100, width=100, annotations=objects)


def manifest(*counts: int) -> Manifest:
    """Images of so many objects each."""
    records = [image_with(count, image_id) for image_id, count in enumerate(counts)]
    categories = (Category(category_id=1, name="cup"),)
    return Manifest(root="", folder="", categories=categories, images=ImageTable.of(records))


def detection(x: float, score: float, category_id: int = 1) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category_id, "bbox": [x, 0, 10, 10], "score": score}


def shown(count: int, *results: dict[str, Any]) -> ShownImage:
    objects = [{"category_id": a.category_id, "bbox": a.box_xywh} for a in image_with(count).annotations]
    return ShownImage(torch.zeros(3, 100, 100, dtype=torch.uint8), {TRUE: objects, "ld": results})


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunPaths:
    monkeypatch.setattr(figures, "read_image", lambda _file, record: record)
    monkeypatch.setattr(Manifest, "image_file", lambda _manifest, record: (None, record))
    folder = RunPaths(tmp_path)
    detections = [detection(x, x / 100) for x in (5, 9, 1, 7)]
    write_atomically(folder.evaluation("ld") / "detections.json", json.dumps(detections).encode())
    return folder


def test_as_many_detections_are_shown_as_there_are_objects(folder: RunPaths) -> None:
    images = show_images(manifest(0, 3), folder, ["ld"])
    assert [[row["score"] for row in image.drawn["ld"]] for image in images] == [[0.09, 0.07, 0.05]]


def test_detections_and_objects_are_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = Figure().subplots(1, 2)
    for panel, name in zip(axes, (TRUE, "ld"), strict=True):
        monkeypatch.setattr(figures, "draw_picture", lambda *given, panel=panel: given[-1](panel, 2.0))
        image_picture(shown(1, detection(20, 0.5)), name, manifest(), "")
    assert [[text.get_text() for text in panel.texts] for panel in axes] == [["cup"], ["cup 0.50"]]


@pytest.mark.parametrize(("counts", "chosen"), [((1, 4, 0, 5, 1), [1, 3]), ((0, 1), [0, 1]), ((), [])])
def test_images_of_several_objects_are_preferred(
    folder: RunPaths, counts: tuple[int, ...], chosen: list[int]
) -> None:
    images: list[Any] = show_images(manifest(*counts), folder, [])
    assert [image.pixels.image_id for image in images] == chosen
