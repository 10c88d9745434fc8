from pathlib import Path

import numpy as np
import pytest
from report_cases import LD_LOSS, student, write_project

from pipeline.codec.edges import dequantize_edges, quantize_edges
from pipeline.codec.precision import Precision
from pipeline.report.statistics import (
    count_positions,
    dense_bytes,
    edge_entropies,
    entropy_of,
    kept_bytes,
    measure_store,
    rounding_error,
    softmax,
)
from pipeline.store.reader.reader import TargetStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    root = tmp_path_factory.mktemp("statistics")
    write_project(root, {"ld": student(LD_LOSS)}, {"per_class": {}})
    return TargetStore.open(root / "cache/targets.zarr")


def test_dense_bytes_by_hand() -> None:
    # 10 x 12 cells, 4 edges of 17 bins and 80 classes, 4 bytes each.
    assert dense_bytes(120, bins=17, num_classes=80) == 120 * 148 * 4
    assert dense_bytes(120, bins=17, num_classes=80, value_bytes=2) == 120 * 148 * 2


def test_kept_bytes_by_hand() -> None:
    assert kept_bytes(100, 10, bins=17, num_classes=4, value_bytes=2) == (100 * 68 + 10 * 4) * 2


def test_positions_by_hand() -> None:
    padded = np.array([[96, 96], [64, 96], [96, 96]], np.int32)
    counts = count_positions(padded, (8, 16, 32))
    assert counts.tolist() == [144 + 36 + 9, 96 + 24 + 6, 144 + 36 + 9]


def test_entropy_of_uniform_and_certain_distributions() -> None:
    assert entropy_of(np.full((1, 8), 1 / 8)) == pytest.approx(np.log(8))
    assert entropy_of(np.eye(4)[:1]) == 0
    logits = np.array([[0.0, 1.0, 3.0]])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert softmax(logits) == pytest.approx(probabilities)


def test_codes_are_read_with_the_step_of_their_weight() -> None:
    precision = Precision(edge_step=0.5, edge_step_cap=4.0, cls_step=0.5)
    codes = np.full((2, 4), 128 + 2, np.int16)  # a difference of 2 * sqrt(2) steps between two bins
    # The second point is valuable only, of a weight so small that its step is four times as large.
    region = np.array([[0, 0, 0, 0], [0, 1, -1, 1]], np.int32)
    found = edge_entropies(codes, region, precision)
    for row, depth in zip(found, (2**0.5, 4 * 2**0.5), strict=True):
        p = 1 / (1 + np.exp(-depth))
        assert row == pytest.approx(-p * np.log(p) - (1 - p) * np.log(1 - p))


def test_statistics_equal_a_direct_computation(store: TargetStore) -> None:
    found = measure_store(store.path, store.schema)
    entropy = np.zeros_like(found.entropy)
    box_points = []
    for key in store.keys:
        view = store.read(key)
        points = view.view.points
        entropies = entropy_of(softmax(view.edge_logits()))
        for level, main, row in zip(points.level, points.main_region, entropies, strict=True):
            entropy[level, int(main)] += np.histogram(row, bins=found.entropy_edges)[0]
        boxes = len(view.view.labels)
        box_points += [int((points.main_gt == box).sum()) for box in range(boxes)]
    assert found.entropy.sum() == 4 * store.statistics["points"]
    assert np.array_equal(found.entropy, entropy)
    assert found.box_points.tolist() == box_points
    assert found.points_by_level.sum(axis=0)[1] == store.statistics["main_points"]
    assert found.view_points.sum() == store.statistics["points"]
    assert sum(found.bytes_by_part.values()) == store.statistics["bytes"]


def test_unused_tail_rows_are_not_counted(store: TargetStore) -> None:
    rows = store.schema.partitions * store.schema.points_per_shard
    assert rows > store.statistics["points"], "the case has no tail to leave out"
    assert measure_store(store.path, store.schema).points_by_level.sum() == store.statistics["points"]


def test_shards_are_read_in_blocks(store: TargetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure_store(store.path, store.schema)
    monkeypatch.setattr("pipeline.report.statistics.BLOCK_CHUNKS", 1)
    blocks = measure_store(store.path, store.schema)
    assert np.array_equal(whole.entropy, blocks.entropy)
    assert np.array_equal(whole.box_points, blocks.box_points)
    np.testing.assert_allclose(whole.edge_error, blocks.edge_error, rtol=1e-12)


def test_rounding_error_is_that_of_the_steps(store: TargetStore) -> None:
    """Uniform over a step: variance step**2 / 12 of each coefficient, spread over one bin more."""
    views = [store.read(key) for key in store.keys]
    steps = np.concatenate([view.edge_steps for view in views if view.edge_steps is not None])
    main = np.concatenate([view.view.points.main_region for view in views])
    bins = store.schema.bins
    expected = [
        np.sqrt((steps[chosen].astype(np.float64) ** 2).mean() / 12 * (bins - 1) / bins)
        for chosen in (~main, main)
    ]
    np.testing.assert_allclose(measure_store(store.path, store.schema).edge_error, expected, rtol=1e-6)


def test_rounding_error_predicts_what_rounding_does() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (2000, 4, 17)).astype(np.float32)
    steps = np.full(2000, 0.2, np.float32)
    error = dequantize_edges(quantize_edges(logits, steps).codes, steps) - (
        logits - logits.mean(axis=-1, keepdims=True)
    )
    predicted = rounding_error(np.array([2000 * 0.2**2]), np.array([2000.0]), 17)
    assert np.sqrt((error**2).mean()) == pytest.approx(predicted[0], rel=0.01)


def test_box_sides_are_those_of_the_views(store: TargetStore) -> None:
    found = measure_store(Path(store.path), store.schema)
    sides = [
        float(np.sqrt((x2 - x1) * (y2 - y1)))
        for key in store.keys
        for x1, y1, x2, y2 in store.view(key).boxes_xyxy.astype(np.float64)
    ]
    assert found.box_sides == pytest.approx(sides)
