import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.codec.logits import (
    cosine_basis,
    dequantize_classes,
    dequantize_edges,
    quantize_classes,
    quantize_edges,
)


def logits(points: int, bins: int = 17, spread: float = 4.0) -> NDArray[np.float32]:
    return np.random.default_rng(points).normal(0, spread, (points, 4, bins)).astype(np.float32)


def test_the_basis_is_the_orthonormal_cosine_transform_without_its_constant() -> None:
    np.testing.assert_allclose(cosine_basis(2), [[0.5**0.5, -(0.5**0.5)]])
    np.testing.assert_allclose(
        cosine_basis(3), [[0.5**0.5, 0, -(0.5**0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]], atol=1e-15
    )
    np.testing.assert_allclose(cosine_basis(17) @ cosine_basis(17).T, np.eye(16), atol=1e-12)


def test_rounding_errs_by_half_a_step_a_coefficient_at_most() -> None:
    """Orthonormal: the error of an edge is that of its coefficients, as a vector."""
    values = logits(200)
    steps = np.random.default_rng(0).choice([0.1, 0.2, 0.4], 200).astype(np.float32)
    quantized = quantize_edges(values, steps)
    error = dequantize_edges(quantized.codes, steps) - (values - values.mean(axis=-1, keepdims=True))
    assert quantized.clipped == 0
    coefficients = np.einsum("peb,kb->pek", error, cosine_basis(17))
    assert (np.abs(coefficients) <= steps[:, None, None] / 2 + 1e-4).all()
    assert quantized.codes.dtype == np.int16
    assert quantized.codes.shape == (200, 4 * 16)


def test_codes_by_hand() -> None:
    """Two bins: the one coefficient is the difference over sqrt(2). Class codes are absolute."""
    values = np.array([[[0, 0], [2**0.5, 0], [0, 2**0.5], [10, 10 + 3 * 2**0.5]]], np.float32)
    assert quantize_edges(values, np.array([0.5], np.float32)).codes.tolist() == [[128, 130, 126, 122]]
    assert quantize_classes(np.array([[1.0, -2.5]], np.float32), 0.5).codes.tolist() == [[2, -5]]


def test_a_constant_per_edge_changes_no_code() -> None:
    values = np.round(logits(20), 2)
    shifted = values + np.arange(80, dtype=np.float32).reshape(20, 4, 1)
    steps = np.full(20, 0.25, np.float32)
    difference = quantize_edges(values, steps).codes.astype(int) - quantize_edges(shifted, steps).codes
    assert np.abs(difference).max() <= 1, "float32 rounding of the shift may tip a code by one"


def test_confident_edges_do_not_saturate_and_absurd_ones_are_counted() -> None:
    values = np.zeros((2, 4, 17), np.float32)
    values[0, 0, :8] = 60
    quantized = quantize_edges(values, np.full(2, 0.05, np.float32))
    assert quantized.clipped == 0
    values[1, 3, 16] = 1e6  # coefficients of both signs in turn
    limited = quantize_edges(values, np.full(2, 0.05, np.float32))
    assert limited.clipped == 16
    assert (limited.codes.min(), limited.codes.max()) == (-(2**15 - 1), 2**15 - 1)


def test_lossless_is_exact() -> None:
    values = logits(30)
    np.testing.assert_array_equal(dequantize_edges(quantize_edges(values, None).codes, None), values)
    classes = values[:, 0]
    np.testing.assert_array_equal(dequantize_classes(quantize_classes(classes, None).codes, None), classes)


@pytest.mark.parametrize(("steps", "cls_step"), [(np.empty(0, np.float32), 0.1), (None, None)])
def test_no_points(steps: NDArray[np.float32] | None, cls_step: float | None) -> None:
    quantized = quantize_edges(np.empty((0, 4, 17), np.float32), steps)
    assert quantized.codes.shape == (0, 68 if steps is None else 64)
    assert dequantize_edges(quantized.codes, steps).shape == (0, 4, 17)
    classes = quantize_classes(np.empty((0, 80), np.float32), cls_step)
    assert dequantize_classes(classes.codes, cls_step).shape == (0, 80)


def test_a_point_alone_has_the_codes_it_has_in_a_batch() -> None:
    values, steps = logits(10), np.linspace(0.1, 0.4, 10, dtype=np.float32)
    alone = [quantize_edges(values[i : i + 1], steps[i : i + 1]).codes for i in range(10)]
    np.testing.assert_array_equal(np.concatenate(alone), quantize_edges(values, steps).codes)


@pytest.mark.parametrize(("steps", "cls_step"), [(np.full(2, 0.1, np.float32), 0.1), (None, None)])
def test_non_finite_logits_are_counted(steps: NDArray[np.float32] | None, cls_step: float | None) -> None:
    values = logits(2)
    values[0, 1, 2], values[1, 0, 0] = np.nan, -np.inf
    with pytest.raises(ValueError, match="2 of 136"):
        quantize_edges(values, steps)
    with pytest.raises(ValueError, match="1 of 2"):
        quantize_classes(np.array([[np.nan, 1.0]], np.float32), cls_step)


def test_class_logits_err_by_half_a_step_at_most() -> None:
    values = np.random.default_rng(0).normal(-5, 3, (100, 80)).astype(np.float32)
    quantized = quantize_classes(values, 0.05)
    assert np.abs(dequantize_classes(quantized.codes, 0.05) - values).max() <= 0.025 + 1e-5
    assert quantized.codes.dtype == np.int16
    assert quantized.clipped == 0


def test_huge_class_logits_saturate_and_are_counted() -> None:
    quantized = quantize_classes(np.array([[1e6, -1e6, 3.0]], np.float32), 0.1)
    assert quantized.codes.tolist() == [[32767, -32767, 30]]
    assert quantized.clipped == 2
