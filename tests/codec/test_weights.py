"""Weights: relative precision from the largest to the smallest, zero apart; old codes as they were."""

import math

import numpy as np
import pytest

from pipeline.codec.weights import (
    CODES_PER_OCTAVE,
    ExactWeights,
    LinearWeights,
    LogarithmicWeights,
    WeightCode,
)

CODES = [LogarithmicWeights(), ExactWeights(), LinearWeights(1023), LinearWeights(2**24)]
every_code = pytest.mark.parametrize("code", CODES, ids=lambda code: type(code).__name__)


def weights_of_all_sizes() -> np.ndarray:
    """An even spread of logarithms: from 1 down to an anchor of 512 px that meets 0.01 px^2."""
    return np.float32(10.0 ** -np.random.default_rng(0).uniform(0, 7.4, 5000))


@every_code
def test_the_error_is_at_most_what_the_code_promises(code: WeightCode) -> None:
    weights = weights_of_all_sizes()
    error = np.abs(code.dequantize(code.quantize(weights)).astype(np.float64) - weights)
    assert (error <= code.max_error(weights)).all()


def test_the_smallest_weights_are_as_precise_as_the_largest() -> None:
    weights = weights_of_all_sizes()
    for code, relative in ((LogarithmicWeights(), 0.0028), (ExactWeights(), 0.0)):
        back = code.dequantize(code.quantize(weights)).astype(np.float64)
        assert (np.abs(back / weights - 1) <= relative).all()
    linear = LinearWeights(1023)
    assert np.abs(linear.dequantize(linear.quantize(weights)) / weights - 1).max() > 100


@every_code
def test_zero_alone_is_code_zero(code: WeightCode) -> None:
    weights = np.array([0.0, np.finfo(np.float32).tiny, 1e-9, 1.0], dtype=np.float32)
    codes = code.quantize(weights)
    assert (codes > 0).tolist() == [False, True, True, True]
    assert code.dequantize(codes)[[0, 3]].tolist() == [0, 1]
    assert codes.dtype == np.int32
    assert code.dequantize(codes).dtype == np.float32


def test_no_machines_logarithm_can_tip_a_code() -> None:
    """Every limit between two codes is far from its nearest float32, measured in last bits of a float64."""
    limits = 2.0 ** -((np.arange(24 * CODES_PER_OCTAVE) + 0.5) / CODES_PER_OCTAVE)
    nearest = limits.astype(np.float32).astype(np.float64)
    assert np.abs(np.log2(nearest / limits)).min() > 100 * np.spacing(24.0)


@pytest.mark.parametrize("code", [LogarithmicWeights(), LinearWeights(1023)], ids=str)
def test_exponents_are_the_rounded_logarithm(code: WeightCode) -> None:
    codes = np.arange(1, 1024)
    exact = 1 - np.log2(code.dequantize(codes).astype(np.float64))
    away = np.abs(exact - np.floor(exact) - 0.5) > 1e-6
    np.testing.assert_array_equal(code.step_exponents(codes, 99)[away], np.rint(exact)[away])
    assert away.mean() > 0.98
    assert code.step_exponents(codes, 3).max() == 3


@every_code
@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan, math.inf])
def test_a_weight_outside_the_unit_interval_is_refused(code: WeightCode, bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]|1 of 2"):
        code.quantize(np.array([0.5, bad], np.float32))
