"""The timer: candidates take turns, and a round before is dropped."""

import time
from collections.abc import Callable
from functools import partial

import torch

from pipeline.cost.probe import take_turns

CPU = torch.device("cpu")


def recorded(calls: list[str], seconds: dict[str, float]) -> dict[str, Callable[[], None]]:
    def work(name: str) -> None:
        calls.append(name)
        time.sleep(seconds[name])

    return {name: partial(work, name) for name in seconds}


def test_candidates_take_turns_in_changing_orders_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    repeats = take_turns(recorded(calls, {"a": 0.0, "b": 0.0, "c": 0.04}), 4, 8, CPU)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 9
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert all(len(seconds) == 8 and min(seconds) > 0 for seconds in repeats.values())
    assert 0.01 <= min(repeats["c"]) < 0.03


def test_work_beyond_the_budget_is_done_once_and_counts() -> None:
    calls: list[str] = []
    repeats = take_turns(recorded(calls, {"a": 0.02, "b": 0.02}), 2, 8, CPU, budget=0.03)
    assert calls == ["a", "b"]
    assert all(0.01 <= seconds < 1 for (seconds,) in repeats.values())
