"""Average precision where it can be said beforehand."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation.coco_ap import SUMMARY, evaluate, to_coco, write_precision_recall
from pipeline.views.classes import Category
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest

EDGES = (32.0, 96.0)
BOXES = {1: (10.0, 10.0, 20.0, 20.0), 2: (5.0, 5.0, 50.0, 50.0)}


def image(image_id: int, side: int, *annotations: Annotation) -> ImageRecord:
    return ImageRecord(image_id=image_id, file_name="", height=side, width=side, annotations=annotations)


def manifest() -> Manifest:
    """Two images with one object each: a small `a` and a medium `b`; nobody has a `c`."""
    records = [
        image(key, 100, Annotation(key, key, *box, area=box[2] * box[3], iscrowd=False))
        for key, box in BOXES.items()
    ]
    categories = tuple(Category(category_id=i, name=name) for i, name in ((1, "a"), (2, "b"), (5, "c")))
    return Manifest(root="r", folder="f", categories=categories, images=ImageTable.of(records))


def found(key: int) -> dict[str, Any]:
    return {"image_id": key, "category_id": key, "bbox": list(BOXES[key]), "score": 0.9}


@pytest.mark.parametrize("first_id", [1, 0])
def test_perfect_detections_have_100_and_none_0(first_id: int) -> None:
    """pycocotools takes an annotation's id of 0 for "unmatched"."""
    first, second = manifest().images
    annotation = structs.replace(first.annotations[0], annotation_id=first_id)
    truth = replace(manifest(), images=ImageTable.of([image(1, 100, annotation), second]))
    evaluation = evaluate(truth, [found(1), found(2)], EDGES)
    assert evaluation.summary == {**dict.fromkeys(SUMMARY, pytest.approx(100)), "APl": None}
    assert evaluation.per_class == {"a": pytest.approx(100), "b": pytest.approx(100), "c": None}
    assert evaluate(truth, [], EDGES).summary["AP"] == 0


@pytest.mark.parametrize(("seed", "edges"), [(4, EDGES), (5, EDGES), (6, (60.0, 100.0)), (7, (20.0, 150.0))])
def test_figures_are_those_of_pycocotools(seed: int, edges: tuple[float, float]) -> None:
    """With crowds, many equal scores, and images of more detections than count."""
    truth, results = drawn_detections(Random(seed))
    results = [{**result, "score": round(result["score"], 1)} for result in results]
    results += [{**result, "score": 0.05} for result in results[::30] * 100]
    evaluation, (small, large) = evaluate(truth, results, edges), edges
    whole = COCO()
    whole.dataset = to_coco(truth)
    whole.createIndex()
    oracle = COCOeval(whole, whole.loadRes(results), "bbox")
    oracle.params.areaRng = [[0, 1e10], [0, small**2], [small**2, large**2], [large**2, 1e10]]
    for step in (oracle.evaluate, oracle.accumulate, oracle.summarize):
        step()
    assert list(evaluation.summary.values()) == [round(100 * value, 3) for value in oracle.stats[:6]]
    precision = oracle.eval["precision"][..., 0, -1]
    means = [round(100 * mean, 3) for mean in precision.mean(axis=(0, 1)).tolist()]
    assert list(evaluation.per_class.values()) == means
    for row, curve in zip((0, 5, 8), evaluation.precision.values(), strict=True):
        np.testing.assert_allclose(curve, precision[row].mean(axis=1), rtol=1e-12)


def drawn_detections(rng: Random) -> tuple[Manifest, list[dict[str, Any]]]:
    """Many objects of three classes, and near them as many detections, of which some have another class."""
    spans = ((0, 80), (0, 80), (9, 200), (9, 200))
    boxes = [tuple(rng.uniform(*span) for span in spans) for _ in range(300)]
    annotations = [
        Annotation(number, rng.choice((1, 2, 5)), *box, area=box[2] * box[3], iscrowd=rng.random() < 0.05)
        for number, box in enumerate(boxes)
    ]
    records = [image(number, 300, *annotations[number::30]) for number in range(30)]
    results = [
        {
            "image_id": a.annotation_id % 30,
            "category_id": a.category_id if rng.random() < 0.8 else 2,
            "bbox": [value + rng.gauss(0, 4) for value in a.box_xywh],
            "score": rng.random(),
        }
        for a in annotations
    ]
    return replace(manifest(), images=ImageTable.of(records)), results


def test_curves_have_a_row_for_every_recall_and_threshold(tmp_path: Path) -> None:
    write_precision_recall(evaluate(manifest(), [found(1)], EDGES), tmp_path / "pr.csv")
    rows = (tmp_path / "pr.csv").read_text().splitlines()
    assert rows[0] == "recall,precision,iou"
    assert len(rows) == 1 + 3 * 101
    assert "0.00,0.5000,0.50" in rows
