import json

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.codec.precision import Precision
from pipeline.codec.weights import ExactWeights, LinearWeights, LogarithmicWeights
from pipeline.core.config import structure
from pipeline.core.errors import ConfigError

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)


@pytest.mark.parametrize(("edge_step", "cls_step"), [(None, 0.1), (0.1, None)])
def test_only_one_lossless_step_is_refused(edge_step: float | None, cls_step: float | None) -> None:
    with pytest.raises(ConfigError, match="two numbers"):
        Precision(edge_step=edge_step, max_step_factor=1.0, cls_step=cls_step)


@pytest.mark.parametrize("bad", [0, -0.1, float("nan"), float("inf"), True, "0.1"])
@pytest.mark.parametrize("name", ["edge_step", "max_step_factor", "cls_step"])
def test_a_value_out_of_range_is_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=rf"p\.{name}: expected a number"):
        structure(Precision, {"edge_step": 0.1, "cls_step": 0.05, name: bad}, "p")


def test_stores_keep_the_words_that_they_always_had_and_refuse_others() -> None:
    words = {"edge_step": 0.1, "edge_step_cap": 4.0, "cls_step": 0.05}
    assert list(QUANTIZED.to_json().items()) == list(words.items())
    for precision in (QUANTIZED, LOSSLESS):
        assert Precision.from_json(json.loads(json.dumps(precision.to_json()))) == precision
    with pytest.raises(ConfigError, match="edge_step_cap"):
        Precision.from_json({"edge_step": 0.1, "cls_step": 0.1})


def test_weights_are_coded_as_their_format_has_it() -> None:
    assert [QUANTIZED.weight_code(version) for version in (2, 3)] == [
        LinearWeights(1023),
        LogarithmicWeights(),
    ]
    assert [LOSSLESS.weight_code(version) for version in (2, 3)] == [LinearWeights(2**24), ExactWeights()]


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


def test_step_grows_by_a_power_of_sqrt_two_up_to_the_cap() -> None:
    """Half the weight counts, so that even a weight of 1 takes one step more than the main region."""
    codes = np.array([1, 64, 65, 129, 257, 385, 513, 9000])
    steps = QUANTIZED.edge_steps(CODE, codes, np.zeros(8, bool))
    assert steps is not None
    expected = 0.1 * np.sqrt(2.0) ** np.array([1, 1, 2, 2, 3, 4, 4, 4])
    np.testing.assert_allclose(steps, expected, rtol=1e-6)
    assert steps.dtype == np.float32


def test_main_region_points_keep_the_finest_step_and_lossless_ones_have_none() -> None:
    codes, main = np.array([0, 1000, 1000]), np.array([True, True, False])
    steps = QUANTIZED.edge_steps(CODE, codes, main)
    assert steps is not None
    assert steps.tolist() == [np.float32(0.1), np.float32(0.1), np.float32(0.4)]
    assert LOSSLESS.edge_steps(ExactWeights(), codes, main) is None
