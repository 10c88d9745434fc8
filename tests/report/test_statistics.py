"""Exact sums come from the writer and the tables; distributions are those of the sampled views."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_cases import LD_LOSS, student, write_project

from pipeline.codec.edges import dequantize_edges, quantize_edges
from pipeline.report import statistics
from pipeline.report.statistics import (
    StoreStatistics,
    count_positions,
    entropy_of,
    measure_store,
    softmax,
    spread_keys,
)
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    root = tmp_path_factory.mktemp("statistics")
    write_project(root, {"ld": student(LD_LOSS)}, {"per_class": {}})
    return TargetStore.open(root / "cache/targets.zarr")


@pytest.fixture(scope="module")
def measured(store: TargetStore) -> StoreStatistics:
    return measure_store(store)


def test_bytes_of_every_choice_by_hand(measured: StoreStatistics) -> None:
    """120 positions of 4 edges of 17 bins and 80 classes; 100 points are kept, 10 of them main."""
    counts = (np.array([count]) for count in (120, 100, 10))
    sizes = dict(zip(("view_positions", "view_points", "view_main"), counts, strict=True))
    known = replace(measured, totals={"bytes": 7}, **sizes)
    kept = 100 * 68 + 10 * 80
    expected = [120 * 148 * 4, 120 * 148 * 2, kept * 4, kept * 2, 7]
    assert list(known.size_by_choice(17, 80).values()) == expected


def test_a_teacher_whose_classes_are_permuted_shows_in_how_often_the_true_one_is_first(
    store: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of 2 at the true class and of -2 at all others, and the same with the classes shifted."""
    read = TargetStore.read

    def measure(shift: int) -> tuple[float, float]:
        def known(self: TargetStore, key: ViewKey) -> StoredView:
            view = read(self, key)
            labels = view.view.labels[view.view.points.main_gt[view.view.points.main_region]]
            columns = np.arange(store.schema.num_classes)
            right = columns == (labels[:, None] + shift) % len(columns)
            return replace(view, cls_codes=np.where(right, 2, -2).astype(np.float32), cls_step=None)

        monkeypatch.setattr(TargetStore, "read", known)
        measured = measure_store(store)
        return measured.true_score, measured.true_first

    assert measure(0) == pytest.approx((1 / (1 + np.exp(-2)), 1))
    assert measure(1) == pytest.approx((1 / (1 + np.exp(2)), 0))


def test_positions_by_hand() -> None:
    padded = np.array([[96, 96], [64, 96], [96, 96]], np.int32)
    counts = count_positions(padded, Pyramid((8, 16, 32), 0.0))
    assert counts.tolist() == [144 + 36 + 9, 96 + 24 + 6, 144 + 36 + 9]


def test_entropy_of_uniform_and_certain_distributions() -> None:
    assert entropy_of(np.full((1, 8), 1 / 8)) == pytest.approx(np.log(8))
    assert entropy_of(np.eye(4)[:1]) == 0
    logits = np.array([[0.0, 1.0, 3.0]])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert softmax(logits) == pytest.approx(probabilities)


def test_keys_are_spread_and_of_different_images() -> None:
    keys = [ViewKey(image, view) for image in range(50) for view in range(2)]
    chosen = spread_keys(keys, 10)
    assert len({key.image_id for key in chosen}) == len(chosen) == 10
    assert chosen == sorted(chosen)
    assert len(spread_keys(keys[:3], 10)) == 2
    assert spread_keys([], 10) == []


def test_distributions_equal_a_direct_computation(store: TargetStore, measured: StoreStatistics) -> None:
    entropy, box_points, sides = np.zeros_like(measured.entropy), [], []
    keys = spread_keys(store.keys, statistics.SAMPLED_VIEWS)
    for view in map(store.read, keys):
        points = view.view.points
        for row, logits in enumerate(view.edge_logits()):
            powers = np.exp(logits.astype(np.float64))
            probabilities = powers / powers.sum(axis=1, keepdims=True)
            found = -(probabilities * np.log(probabilities)).sum(axis=1)
            entropy[points.level[row], int(points.main_gt[row] >= 0)] += np.histogram(
                found, measured.entropy_edges
            )[0]
        box_points += [int((points.main_gt == box).sum()) for box in range(len(view.view.labels))]
        sides += [((x2 - x1) * (y2 - y1)) ** 0.5 for x1, y1, x2, y2 in view.view.boxes_xyxy.tolist()]
    assert measured.sampled == len(keys) == 5
    assert measured.entropy.any(axis=(0, 2)).all(), "the case has no edge in one of the regions"
    assert np.array_equal(measured.entropy, entropy)
    assert measured.box_points.tolist() == box_points
    assert measured.box_sides == pytest.approx(sides)


def test_sums_are_those_of_the_whole_store(store: TargetStore, measured: StoreStatistics) -> None:
    views = [store.view(key) for key in store.keys]
    assert measured.view_points.tolist() == [len(view.points) for view in views]
    assert measured.view_main.tolist() == [view.points.main_count for view in views]
    assert measured.totals["points"] == measured.view_points.sum()
    assert sum(measured.bytes_by_part.values()) == measured.totals["bytes"]
    edges = [file.stat().st_size for file in Path(store.path, "points/edge_codes/c").rglob("*/0")]
    assert measured.bytes_by_part["edge distributions"] == sum(edges)


def test_no_more_than_the_sample_is_decoded(store: TargetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SAMPLED_VIEWS", 2)
    read: list[ViewKey] = []
    monkeypatch.setattr(store, "read", lambda key: read.append(key) or TargetStore.read(store, key))
    assert measure_store(store).sampled == len(read) == 2


def test_rounding_error_predicts_what_rounding_does(store: TargetStore, measured: StoreStatistics) -> None:
    """Quantize random logits with the very steps of the sampled points."""
    views = [store.read(key) for key in spread_keys(store.keys, statistics.SAMPLED_VIEWS)]
    steps = np.concatenate([view.edge_steps for view in views if view.edge_steps is not None])
    main = np.concatenate([view.view.points.main_region for view in views])
    for region, predicted in enumerate(measured.edge_error):
        chosen = np.resize(steps[main == region], 20_000)
        logits = np.random.default_rng(0).normal(0, 3, (len(chosen), 4, 17)).astype(np.float32)
        stored = dequantize_edges(quantize_edges(logits, chosen).codes, chosen)
        error = stored - (logits - logits.mean(axis=-1, keepdims=True))
        assert np.sqrt((error**2).mean()) == pytest.approx(predicted, rel=0.02)
