"""The timer: candidates take turns, a round before is dropped, memory is what was held at a time."""

import time
from collections.abc import Callable

import pytest
import torch

from pipeline.cost.timer import Repeats, peak_bytes, take_turns

CPU = torch.device("cpu")


def recorded(calls: list[str], names: str, seconds: float = 0.0) -> dict[str, Callable[[], None]]:
    def candidate(name: str) -> Callable[[], None]:
        def work() -> None:
            calls.append(name)
            time.sleep(seconds)

        return work

    return {name: candidate(name) for name in names}


def test_candidates_take_turns_in_changing_orders_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    seconds = take_turns(recorded(calls, "abc"), 8, CPU)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 9
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert {name: len(values) for name, values in seconds.items()} == {"a": 8, "b": 8, "c": 8}


def test_work_beyond_the_budget_is_done_once_and_counts() -> None:
    calls: list[str] = []
    seconds = take_turns(recorded(calls, "ab", seconds=0.02), 8, CPU, budget=0.03)
    assert calls == ["a", "b"]
    assert all(0.02 <= value < 1 for (value,) in seconds.values())


def test_repeats_of_hand_written_seconds() -> None:
    assert Repeats.from_rounds([6.0, 2.0, 4.0, 18.0], 2) == Repeats(median=2.5, lowest=1, highest=9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="counts a GPU's memory")
def test_peak_memory_is_what_was_held_at_a_time() -> None:
    def work() -> None:
        for _ in range(3):
            torch.ones(50_000_000, device="cuda")  # float32: 200 MB, given back each time

    assert peak_bytes(work, torch.device("cuda")) == pytest.approx(200e6, rel=0.05)
