import numpy as np
import pytest

from pipeline.codec.classes import dequantize_classes, quantize_classes


def test_error_is_at_most_half_a_step() -> None:
    values = np.random.default_rng(0).normal(-5, 3, (100, 80)).astype(np.float32)
    quantized = quantize_classes(values, 0.05)
    assert np.abs(dequantize_classes(quantized.codes, 0.05) - values).max() <= 0.025 + 1e-5
    assert quantized.codes.dtype == np.int16
    assert quantized.clipped == 0


def test_codes_are_absolute() -> None:
    """By hand: the logit itself must come back, not only its difference to the row's others."""
    assert quantize_classes(np.array([[1.0, -2.5]], np.float32), 0.5).codes.tolist() == [[2, -5]]


def test_huge_logits_saturate_and_are_counted() -> None:
    quantized = quantize_classes(np.array([[1e6, -1e6, 3.0]], np.float32), 0.1)
    assert quantized.codes.tolist() == [[32767, -32767, 30]]
    assert quantized.clipped == 2


def test_lossless_is_exact() -> None:
    values = np.random.default_rng(1).normal(0, 9, (7, 5)).astype(np.float32)
    np.testing.assert_array_equal(dequantize_classes(quantize_classes(values, None).codes, None), values)


@pytest.mark.parametrize("step", [0.1, None])
def test_no_points(step: float | None) -> None:
    quantized = quantize_classes(np.empty((0, 80), np.float32), step)
    assert dequantize_classes(quantized.codes, step).shape == (0, 80)


@pytest.mark.parametrize("step", [0.1, None])
def test_non_finite_logits_are_counted(step: float | None) -> None:
    with pytest.raises(ValueError, match="1 of 2"):
        quantize_classes(np.array([[np.nan, 1.0]], np.float32), step)
