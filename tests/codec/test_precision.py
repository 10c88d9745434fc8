import json

import pytest

from pipeline.codec.precision import Precision
from pipeline.codec.weights import ExactWeights, LinearWeights, LogarithmicWeights
from pipeline.core.config import structure
from pipeline.core.errors import ConfigError

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS])
def test_json_round_trip(precision: Precision) -> None:
    assert Precision.from_json(json.loads(json.dumps(precision.to_json()))) == precision


@pytest.mark.parametrize(("edge_step", "cls_step"), [(None, 0.1), (0.1, None)])
def test_only_one_lossless_step_is_refused(edge_step: float | None, cls_step: float | None) -> None:
    with pytest.raises(ConfigError, match="two numbers"):
        Precision(edge_step=edge_step, max_step_factor=1.0, cls_step=cls_step)


@pytest.mark.parametrize("bad", [0, -0.1, float("nan"), float("inf"), True, "0.1"])
@pytest.mark.parametrize("name", ["edge_step", "max_step_factor", "cls_step"])
def test_a_value_out_of_range_is_refused_by_name(name: str, bad: float) -> None:
    with pytest.raises(ConfigError, match=rf"p\.{name}: expected a number"):
        structure(Precision, {"edge_step": 0.1, "cls_step": 0.05, name: bad}, "p")


def test_stores_keep_the_words_that_they_always_had() -> None:
    assert QUANTIZED.to_json() == {"edge_step": 0.1, "edge_step_cap": 4.0, "cls_step": 0.05}
    assert list(QUANTIZED.to_json()) == ["edge_step", "edge_step_cap", "cls_step"]


def test_unknown_or_missing_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="edge_step_cap"):
        Precision.from_json({"edge_step": 0.1, "cls_step": 0.1})


def test_weights_are_coded_as_their_format_has_it() -> None:
    assert [QUANTIZED.weight_code(version) for version in (2, 3)] == [
        LinearWeights(1023),
        LogarithmicWeights(),
    ]
    assert [LOSSLESS.weight_code(version) for version in (2, 3)] == [LinearWeights(2**24), ExactWeights()]


def test_formula_names_the_numbers_a_plain_reader_needs() -> None:
    for number in ("0.1", "0.05", "at most 4"):
        assert number in QUANTIZED.formula(LogarithmicWeights())
    assert "float32" in LOSSLESS.formula(ExactWeights())
    assert "weight_code / 16777216" in LOSSLESS.formula(LinearWeights(2**24))
