import math

import numpy as np
import pytest

from pipeline.codec.precision import Precision
from pipeline.codec.steps import edge_steps, step_exponents

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
LOSSLESS = Precision(edge_step=None, max_step_factor=4.0, cls_step=None)


@pytest.mark.parametrize("cap", [1.0, 1.5, 2.0, 4.0, 64.0])
def test_exponent_is_the_rounded_logarithm(cap: float) -> None:
    """Against floats, over every code there is; codes at a boundary do not exist (it is irrational)."""
    precision = Precision(edge_step=0.1, max_step_factor=cap, cls_step=0.1)
    codes = np.arange(1, 1024)
    exact = 1 - np.log2(codes / 1023)
    away = np.abs(exact - np.floor(exact) - 0.5) > 1e-9
    expected = np.clip(np.rint(exact), 0, math.floor(2 * math.log2(cap) + 1e-9))
    np.testing.assert_array_equal(step_exponents(precision, codes)[away], expected[away])
    assert away.all()


def test_exponents_of_weights_by_hand() -> None:
    """Half the weight counts, so that even a weight of 1 takes one step more than the main region."""
    codes = np.array([1023, 724, 723, 512, 256, 128, 64, 1])
    assert step_exponents(QUANTIZED, codes).tolist() == [1, 1, 2, 2, 3, 4, 4, 4]


def test_lossless_codes_give_the_same_exponents_as_their_weights() -> None:
    codes = np.array([2**24, 2**23, 2**22, 1])
    assert step_exponents(LOSSLESS, codes).tolist() == [1, 2, 3, 4]


def test_step_grows_by_a_power_of_sqrt_two_up_to_the_cap() -> None:
    codes = np.array([1023, 512, 256, 128, 64, 1, 0])
    steps = edge_steps(QUANTIZED, codes, np.zeros(7, bool))
    assert steps is not None
    expected = 0.1 * np.sqrt(2.0) ** np.array([1, 2, 3, 4, 4, 4, 4])
    np.testing.assert_allclose(steps, expected, rtol=1e-6)
    assert steps.dtype == np.float32


def test_main_region_points_keep_the_finest_step() -> None:
    steps = edge_steps(QUANTIZED, np.array([0, 1, 64]), np.array([True, True, False]))
    assert steps is not None
    assert steps.tolist() == [np.float32(0.1), np.float32(0.1), np.float32(0.4)]


def test_no_points_and_lossless() -> None:
    nothing = np.empty(0, np.int32)
    steps = edge_steps(QUANTIZED, nothing, nothing.astype(bool))
    assert steps is not None
    assert steps.shape == (0,)
    assert edge_steps(LOSSLESS, nothing, nothing.astype(bool)) is None
