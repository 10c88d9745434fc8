"""What is said about where the time went."""

import pytest

from pipeline.teacher.run import STEPS, StoreTimes


@pytest.mark.parametrize(
    ("threads", "seconds", "bottleneck"),
    [
        *(((1, 1, 1), dict.fromkeys(STEPS, 1.0) | {step: 9.0}, step) for step in STEPS),
        ((1, 1, 1), {"decode": 8.0, "teacher": 4.0}, "decode"),
        ((8, 1, 1), {"decode": 8.0, "teacher": 4.0}, "teacher"),
        ((1, 1, 1), {"teacher": 5.0, "regions": 2.0, "quantize": 1.0, "write": 3.0}, "write"),
        ((1, 1, 4), {"teacher": 5.0, "regions": 2.0, "quantize": 1.0, "write": 3.0}, "teacher"),
    ],
)
def test_the_bottleneck_is_the_step_that_takes_each_of_its_threads_longest(
    threads: tuple[int, ...], seconds: dict[str, float], bottleneck: str
) -> None:
    """Those that write find regions and quantize, too."""
    assert StoreTimes(threads=threads, **seconds).bottleneck == bottleneck


def test_sums_and_the_sentence_that_a_run_ends_with() -> None:
    total = StoreTimes()
    for name, seconds in (("a", {"decode": 1.0, "teacher": 4.0}), ("b", {"teacher": 2.0, "write": 0.5})):
        total += StoreTimes(views=10, workers=frozenset({name}), **seconds)
    assert total.summary_line(4.0) == (
        "cached 20 views in 4.0 s (5 views/s, 2 workers): "
        "regions 0.0 s, decode 1.0 s, teacher 6.0 s, quantize 0.0 s, write 0.5 s; bottleneck: teacher"
    )
