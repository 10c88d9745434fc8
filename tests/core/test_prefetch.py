"""Loading ahead: order, bounds, errors, and turns."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing

import pytest

from pipeline.core.prefetch import Prefetcher

Numbers = Prefetcher[int, int, int]


def double(number: int) -> int:
    return 2 * number


def add(loaded: int, number: int) -> int:
    return loaded + number


def results(overlap: Numbers, items: range) -> list[int]:
    return [computed.result for computed in overlap.run(items)]


def test_results_come_in_the_order_of_the_items_and_their_work_is_timed_without_waiting() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.2 if number == 0 else 0)
        return 2 * number

    with closing(Prefetcher(slow_at_first, add, loaders=3, computers=2)) as overlap:
        computed = list(overlap.run(range(20)))
        assert results(overlap, range(0)) == []
    assert [item.result for item in computed] == [3 * number for number in range(20)]
    assert computed[0].load_seconds >= 0.2
    assert sum(item.compute_seconds for item in computed) < 0.2


def test_no_more_is_loaded_than_every_thread_has_one() -> None:
    """Memory: a run over all images must not hold all of them."""
    loaded: list[int] = []

    def load(number: int) -> int:
        loaded.append(number)
        return number

    with closing(Prefetcher(load, add, loaders=2, computers=1)) as overlap:
        for taken, _ in enumerate(overlap.run(range(50)), start=1):
            time.sleep(0.001)
            assert len(loaded) <= taken + 3


def test_one_computer_is_one_thread_and_the_next_run_is_loaded_while_the_last_items_are_computed() -> None:
    loaded_second, begun, order, threads = threading.Event(), threading.Event(), [], set()

    def load(number: int) -> int:
        if number == 100:
            loaded_second.set()
        return number

    def compute(loaded: int, _number: int) -> int:
        order.append(loaded)
        threads.add(threading.get_ident())
        if loaded == 2:
            assert loaded_second.wait(timeout=60), "the second run waits for the end of the first"
        return loaded

    def items() -> Iterator[int]:
        begun.set()
        yield from range(3)

    def second_run() -> list[int]:
        begun.wait(timeout=60)
        return results(overlap, range(100, 103))

    with closing(Prefetcher(load, compute, loaders=2, computers=1)) as overlap, ThreadPoolExecutor(1) as pool:
        second = pool.submit(second_run)
        assert [computed.result for computed in overlap.run(items())] == [0, 1, 2]
        assert second.result() == [100, 101, 102]
    assert order == [0, 1, 2, 100, 101, 102]
    assert len(threads) == 1


@pytest.mark.parametrize("step", ["load", "compute"])
def test_an_error_comes_in_its_items_place_and_later_runs_work(step: str) -> None:
    def refuse(number: int) -> int:
        if number == 3:
            raise ValueError("no such image")
        return number

    steps = (refuse, add) if step == "load" else (double, lambda loaded, number: loaded + refuse(number))
    with closing(Prefetcher(*steps, loaders=2, computers=1)) as overlap:
        seen = []
        with pytest.raises(ValueError, match="no such image"):
            seen.extend(computed.result for computed in overlap.run(range(10)))
        assert results(overlap, range(3)) == [(2 if step == "load" else 3) * number for number in range(3)]


def test_closing_ends_a_run_that_is_under_way() -> None:
    overlap = Prefetcher(double, add, loaders=1, computers=1)
    run = overlap.run(range(1000))
    assert next(run).result == 0
    overlap.close()
    with pytest.raises((CancelledError, RuntimeError)):
        list(run)
