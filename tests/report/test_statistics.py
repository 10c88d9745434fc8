"""Sums come from the writer and the tables; what is sampled is spread over the store."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from finished import FOLDER, working_in
from report_cases import LD_LOSS, student

from pipeline.core.paths import SPLITS
from pipeline.report.collect import Report, collect, size_by_choice
from pipeline.report.shown_views import show_view, softmax, spread_keys, true_class_first
from pipeline.views.manifest import read_manifest
from pipeline.views.types import ViewKey


@pytest.fixture(scope="module")
def report(finished_project: Path) -> Report:
    with working_in(finished_project):
        train, val = (read_manifest(FOLDER.manifest(split)) for split in SPLITS)
        return collect(FOLDER, train, val, {"ld": student(LD_LOSS)}, torch.device("cpu"))


def test_bytes_of_every_choice_by_hand() -> None:
    """120 positions of 4 edges of 17 bins and 80 classes; 100 points are kept, 10 of them main."""
    totals = {"bytes": 7, "points": 100, "main_points": 10}
    kept = 100 * 68 + 10 * 80
    expected = [120 * 148 * 4, 120 * 148 * 2, kept * 4, kept * 2, 7]
    schema: Any = SimpleNamespace(bins=17, num_classes=80)
    assert list(size_by_choice(schema, totals, 120).values()) == expected


def test_a_teacher_whose_classes_are_permuted_shows_in_how_often_the_true_one_is_first(
    report: Report,
) -> None:
    """Logits of 2 at the true class and of -2 at all others, and the same with the classes shifted."""

    def measure(shift: int) -> float | None:
        views = []
        for key in report.store.keys:
            view = show_view(report.store, key, None, [])
            points = view.stored.view.points
            labels = view.stored.view.labels[points.main_gt[points.main_region]]
            columns = np.arange(report.store.schema.num_classes)
            codes = np.where(columns == (labels[:, None] + shift) % len(columns), 2, -2).astype(np.float32)
            views.append(replace(view, stored=replace(view.stored, cls_codes=codes, cls_step=None)))
        return true_class_first(views)

    assert measure(0) == 1
    assert measure(1) == 0
    assert true_class_first([]) is None


def test_probabilities_by_hand() -> None:
    logits = np.array([[0.0, 1.0, 3.0]])
    assert softmax(torch.from_numpy(logits)) == pytest.approx(np.exp(logits) / np.exp(logits).sum())


def test_keys_are_spread_and_of_different_images() -> None:
    keys = [ViewKey(image, view) for image in range(50) for view in range(2)]
    chosen = spread_keys(keys, 10)
    assert len({key.image_id for key in chosen}) == len(chosen) == 10
    assert chosen == sorted(chosen)
    assert len(spread_keys(keys[:3], 10)) == 2
    assert spread_keys([], 10) == []


def test_sums_are_those_of_the_whole_store(report: Report) -> None:
    store = report.store
    views = [store.view(key) for key in store.keys]
    assert store.statistics["points"] == sum(len(view.points) for view in views)
    assert store.statistics["main_points"] == sum(view.points.main_count for view in views)
    grids = [store.schema.pyramid.grid(view.geometry.padded_hw) for view in views]
    assert report.positions == sum(map(len, grids))
    assert sum(report.bytes_by_part.values()) == store.statistics["bytes"]
    edges = [file.stat().st_size for file in Path(store.path, "points/edge_codes/c").rglob("*/0")]
    assert report.bytes_by_part["points/edge_codes"] == sum(edges)
