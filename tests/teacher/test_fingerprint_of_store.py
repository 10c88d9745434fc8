"""What a store is made from: what changes its bytes, and nothing else."""

from pathlib import Path

import pytest
from teacher_cases import DETECTOR, QUANTIZED, small_config, small_view_set

from pipeline.detector.config import NetworkPrecision
from pipeline.detector.gfl import gfl_spec
from pipeline.store.format.fingerprint import ABSENT, diff
from pipeline.teacher.inputs import store_fingerprint


def fingerprint(folder: Path, precision: NetworkPrecision) -> dict[str, object]:
    view_set = small_view_set(folder)
    spec = gfl_spec(DETECTOR, view_set.conventions)
    config = small_config(QUANTIZED, forward_precision=precision)
    return store_fingerprint(view_set, spec, DETECTOR.to_json(), "w", config)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_of_the_teacher_makes_another_store(
    tmp_path: Path, precision: NetworkPrecision
) -> None:
    lower, exact = fingerprint(tmp_path, precision), fingerprint(tmp_path, "float32")
    field = "teacher.forward_precision"
    assert diff(lower, exact) == (field, f'"{precision}"', ABSENT)
    assert diff(exact, lower) == (field, ABSENT, f'"{precision}"')


def test_stores_from_before_the_precision_could_be_chosen_stay_good(tmp_path: Path) -> None:
    teacher = fingerprint(tmp_path, "float32")["teacher"]
    assert isinstance(teacher, dict)
    assert list(teacher) == ["architecture", "weights", "batch_size"]
