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
    np.testing.assert_allclose(cosine_basis(17).sum(axis=1), 0, atol=1e-12)


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
    classes = values[:, 0]
    assert np.abs(dequantize_classes(quantize_classes(classes, 0.05).codes, 0.05) - classes).max() < 0.0251


def test_codes_by_hand() -> None:
    """Two bins: the one coefficient is the difference over sqrt(2). Class codes are absolute."""
    values = np.array([[[0, 0], [2**0.5, 0], [0, 2**0.5], [10, 10 + 3 * 2**0.5]]], np.float32)
    assert quantize_edges(values, np.array([0.5], np.float32)).codes.tolist() == [[128, 130, 126, 122]]
    assert quantize_classes(np.array([[1.0, -2.5]], np.float32), 0.5).codes.tolist() == [[2, -5]]


def test_confident_edges_do_not_saturate_and_absurd_ones_are_counted() -> None:
    values = np.zeros((2, 4, 17), np.float32)
    values[0, 0, :8] = 60
    quantized = quantize_edges(values, np.full(2, 0.05, np.float32))
    assert quantized.clipped == 0
    values[1, 3, 16] = 1e6  # coefficients of both signs in turn
    limited = quantize_edges(values, np.full(2, 0.05, np.float32))
    assert limited.clipped == 16
    assert (limited.codes.min(), limited.codes.max()) == (-(2**15 - 1), 2**15 - 1)
    classes = quantize_classes(np.array([[1e6, -1e6, 3.0]], np.float32), 0.1)
    assert (classes.codes.tolist(), classes.clipped) == ([[32767, -32767, 30]], 2)


def test_lossless_is_exact() -> None:
    values = logits(30)
    np.testing.assert_array_equal(dequantize_edges(quantize_edges(values, None).codes, None), values)
    classes = values[:, 0]
    np.testing.assert_array_equal(dequantize_classes(quantize_classes(classes, None).codes, None), classes)


@pytest.mark.parametrize(("steps", "cls_step"), [(np.full(2, 0.1, np.float32), 0.1), (None, None)])
def test_non_finite_logits_are_counted(steps: NDArray[np.float32] | None, cls_step: float | None) -> None:
    values = logits(2)
    values[0, 1, 2], values[1, 0, 0] = np.nan, -np.inf
    with pytest.raises(ValueError, match="2 of 136"):
        quantize_edges(values, steps)
    with pytest.raises(ValueError, match="1 of 2"):
        quantize_classes(np.array([[np.nan, 1.0]], np.float32), cls_step)
