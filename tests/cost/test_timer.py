"""The timer: candidates take turns, and a round before is dropped."""

import time
from collections.abc import Callable
from functools import partial

import torch

from pipeline.cost.timer import take_turns

CPU = torch.device("cpu")


def recorded(calls: list[str], seconds: dict[str, float]) -> dict[str, Callable[[], None]]:
    def work(name: str) -> None:
        calls.append(name)
        time.sleep(seconds[name])

    return {name: partial(work, name) for name in seconds}


def test_candidates_take_turns_in_changing_orders_after_a_round_that_does_not_count() -> None:
    calls: list[str] = []
    repeats = take_turns(recorded(calls, {"a": 0.0, "b": 0.0, "c": 0.04}), 8, CPU, pieces=4)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 9
    assert len({tuple(each) for each in rounds[1:]}) > 1
    assert 0 < repeats["a"].lowest <= repeats["a"].median <= repeats["a"].highest
    assert 0.01 <= repeats["c"].lowest < 0.03


def test_work_beyond_the_budget_is_done_once_and_counts() -> None:
    calls: list[str] = []
    repeats = take_turns(recorded(calls, {"a": 0.02, "b": 0.02}), 8, CPU, budget=0.03)
    assert calls == ["a", "b"]
    assert all(0.02 <= each.lowest == each.highest < 1 for each in repeats.values())
