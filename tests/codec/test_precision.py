import json
import math

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.codec.precision import (
    CODES_PER_OCTAVE,
    ExactWeights,
    LinearWeights,
    LogarithmicWeights,
    Precision,
    WeightCode,
)

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)


def test_stores_keep_the_words_that_they_always_had() -> None:
    words = {"edge_step": 0.1, "edge_step_cap": 4.0, "cls_step": 0.05}
    assert list(QUANTIZED.to_json().items()) == list(words.items())
    for precision in (QUANTIZED, LOSSLESS):
        assert Precision.from_json(json.loads(json.dumps(precision.to_json()))) == precision


def test_weights_are_coded_as_their_format_has_it() -> None:
    assert [QUANTIZED.weight_code(version) for version in (2, 3)] == [
        LinearWeights(1023),
        LogarithmicWeights(),
    ]
    assert [LOSSLESS.weight_code(version) for version in (2, 3)] == [LinearWeights(2**24), ExactWeights()]


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


CODE = LogarithmicWeights()
"""An octave has 128 codes; weight 1 has code 1."""


@pytest.mark.parametrize(
    ("cap", "largest"), [(1.0, 0), (1.4, 0), (1.5, 1), (2.0, 2), (3.0, 3), (8.0, 6), (64.0, 12)]
)
def test_the_step_never_exceeds_the_cap(cap: float, largest: int) -> None:
    precision = replace(QUANTIZED, max_step_factor=cap)
    assert precision.max_step_exponent == largest
    assert 2 ** (largest / 2) <= cap < 2 ** ((largest + 1) / 2)
    steps = precision.edge_steps(CODE, np.arange(1, 9000), np.zeros(8999, bool))
    assert steps is not None
    assert steps.max() == pytest.approx(0.1 * 2 ** (largest / 2))


def test_step_grows_by_a_power_of_sqrt_two_up_to_the_cap_outside_the_main_region() -> None:
    """Half the weight counts, so that even a weight of 1 takes one step more than the main region."""
    codes, main = np.array([1, 64, 65, 129, 257, 385, 513, 9000, 0, 1000]), np.arange(10) >= 8
    steps = QUANTIZED.edge_steps(CODE, codes, main)
    assert steps is not None
    expected = 0.1 * np.sqrt(2.0) ** np.array([1, 1, 2, 2, 3, 4, 4, 4, 0, 0])
    np.testing.assert_allclose(steps, expected, rtol=1e-6)
    assert steps.dtype == np.float32
    assert LOSSLESS.edge_steps(ExactWeights(), codes, main) is None
