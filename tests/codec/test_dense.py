"""Codes of the teacher at every point."""

import numpy as np
import pytest

from pipeline.codec.dense import BOX_UNITS, DensePrecision, decode_boxes, encode_boxes


@pytest.mark.parametrize("floor", [1e-5, 0.001, 0.005, 0.01, 0.05, 0.4])
def test_levels_begin_at_the_floor_widen_below_and_are_the_nearest_of_a_value(floor: float) -> None:
    precision = DensePrecision(floor=floor)
    levels = precision.log_odds
    assert levels[0] == pytest.approx(np.log(floor / (1 - floor)))
    assert len(levels) <= 255
    assert 12 <= levels[-1] < 12.8
    scores = 1 / (1 + np.exp(-levels[:-1]))
    clear = np.min([np.abs(scores - edge) for edge in (0.01, 0.02, 0.1)], axis=0) > 1e-9
    expected = np.select([scores < 0.01, scores < 0.02, scores < 0.1], [0.8, 0.4, 0.2], 0.1)
    assert np.diff(levels)[clear] == pytest.approx(expected[clear])
    values = np.linspace(-15, 12, 5000).astype(np.float32)
    codes = np.searchsorted(precision.edges, values, side="right")
    kept = values >= precision.edges[0]
    assert np.array_equal(codes > 0, kept)
    distance = np.abs(levels[:, None] - values[kept])
    nearest = distance[codes[kept] - 1, np.arange(distance.shape[1])]
    assert np.abs(nearest - distance.min(axis=0)).max() < 1e-5


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_boxes_come_back_whatever_the_differences_and_alike_ones_take_a_byte(rows: int) -> None:
    units = np.random.default_rng(rows).integers(0, 2**16, (rows, 4)).astype(np.uint16)
    assert np.array_equal(decode_boxes(encode_boxes(units)), units)
    assert (encode_boxes(np.full((9, 4), 16 * BOX_UNITS, np.uint16))[1:] < 256).all()
