import numpy as np
import pytest

from pipeline.codec.weights import dequantize_weights, quantize_weights

SCALES = [65535, 2**24]


@pytest.mark.parametrize("scale", SCALES)
def test_error_is_at_most_half_a_code(scale: int) -> None:
    weights = np.random.default_rng(0).random(1000).astype(np.float32)
    back = dequantize_weights(quantize_weights(weights, scale), scale)
    assert np.abs(back.astype(np.float64) - weights).max() <= 0.5 / scale + 2.0**-25
    assert back.dtype == np.float32


@pytest.mark.parametrize("scale", SCALES)
def test_zero_stays_zero_and_the_smallest_positive_weight_stays_positive(scale: int) -> None:
    weights = np.array([0.0, np.finfo(np.float32).tiny, 1e-9, 1.0], dtype=np.float32)
    assert quantize_weights(weights, scale).tolist() == [0, 1, 1, scale]


@pytest.mark.parametrize("scale", SCALES)
def test_codes_survive_a_second_round(scale: int) -> None:
    codes = np.unique(np.random.default_rng(1).integers(0, scale + 1, 5000)).astype(np.int32)
    np.testing.assert_array_equal(quantize_weights(dequantize_weights(codes, scale), scale), codes)


def test_no_points() -> None:
    assert quantize_weights(np.empty(0, np.float32), 65535).shape == (0,)


@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_a_weight_outside_the_unit_interval_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        quantize_weights(np.array([0.5, bad], np.float32), 65535)


def test_non_finite_weights_are_counted() -> None:
    with pytest.raises(ValueError, match="2 of 3"):
        quantize_weights(np.array([np.nan, 0.5, np.inf], np.float32), 65535)
