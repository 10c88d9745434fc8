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


def manifest(*counts: int) -> Manifest:
    """Images of so many objects each."""
    records = []
    for image_id, count in enumerate(counts):
        objects = [Annotation(n, 1, 20.0 * n, 0, 10, 10, area=100, iscrowd=False) for n in range(count)]
        row: Any = {"image_id": image_id, "file_name": "x.png", "height": 100, "width": 100}
        records.append(ImageRecord(**row, annotations=tuple(objects)))
    return Manifest(root="", folder="", categories=(Category(1, "cup"),), images=ImageTable.of(records))


def detection(x: float, score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [x, 0, 10, 10], "score": score}


def test_images_of_several_objects_are_preferred_and_have_as_many_detections(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(figures, "read_image", lambda _file, record: record)
    monkeypatch.setattr(Manifest, "image_file", lambda _manifest, record: (None, record))
    folder = RunPaths(tmp_path)
    detections = [detection(x, x / 100) for x in (5, 9, 1, 7)]
    write_atomically(folder.evaluation("ld") / "detections.json", json.dumps(detections).encode())
    for counts, scores in (
        ((2, 3, 0, 5, 9), {1: [0.09, 0.07, 0.05], 3: []}),
        ((0, 1), {0: [], 1: [0.09]}),
        ((), {}),
    ):
        images: list[Any] = show_images(manifest(*counts), folder, ["ld"])
        assert {each.pixels.image_id: [row["score"] for row in each.drawn["ld"]] for each in images} == scores


def test_detections_and_objects_are_labeled(monkeypatch: pytest.MonkeyPatch) -> None:
    axes, row = Figure().subplots(1, 2), detection(20, 0.5)
    image = ShownImage(torch.zeros(3, 100, 100, dtype=torch.uint8), {TRUE: [row], "ld": [row]})
    for panel, name in zip(axes, (TRUE, "ld"), strict=True):
        monkeypatch.setattr(figures, "draw_picture", lambda *given, panel=panel: given[-1](panel, 2.0))
        image_picture(image, name, manifest(), "")
    assert [[text.get_text() for text in panel.texts] for panel in axes] == [["cup"], ["cup 0.50"]]
