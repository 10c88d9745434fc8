"""What is said about where the time went."""

from dataclasses import replace

import pytest

from pipeline.teacher.times import Seconds, StoreTimes

STEPS = ("regions", "decode", "teacher", "quantize", "write")


def times(**seconds: float) -> StoreTimes:
    busy = Seconds(**seconds)
    return StoreTimes(views=10, workers=frozenset({"a"}), devices=frozenset({"cpu"}), busy=busy, load=busy)


@pytest.mark.parametrize("step", STEPS)
def test_the_step_that_takes_longest_is_the_bottleneck(step: str) -> None:
    assert times(**{**dict.fromkeys(STEPS, 1.0), step: 9.0}).bottleneck == step


def test_threads_that_share_a_step_shorten_it() -> None:
    item = times(decode=8.0, teacher=4.0)
    assert item.bottleneck == "decode"
    assert replace(item, load=Seconds(decode=1.0, teacher=4.0)).bottleneck == "teacher"


def test_the_steps_of_the_writing_threads_count_together() -> None:
    assert times(teacher=5.0, regions=2.0, quantize=1.0, write=3.0).bottleneck == "write"
    assert times(teacher=7.0, regions=2.0, quantize=1.0, write=3.0).bottleneck == "teacher"


def test_sums_and_the_sentence_that_a_run_ends_with() -> None:
    total = (
        StoreTimes()
        + times(decode=1.0, teacher=4.0)
        + replace(times(teacher=2.0, write=0.5), workers=frozenset({"b"}))
    )
    assert total.summary_line(4.0) == (
        "cached 20 views in 4.0 s (5 views/s, 2 workers): "
        "regions 0.0 s, decode 1.0 s, teacher 6.0 s, quantize 0.0 s, write 0.5 s; "
        "the teacher is the bottleneck"
    )
    assert total.to_json() == {
        "device": "cpu",
        "workers": 2,
        "computed_views": 20,
        "busy_seconds": {"regions": 0.0, "decode": 1.0, "teacher": 6.0, "quantize": 0.0, "write": 0.5},
        "bottleneck": "teacher",
    }
