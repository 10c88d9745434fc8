"""Loading ahead of a device in threads, in order and bounded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Generic, TypeVar

from pipeline.core.timing import timed_call

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, eq=False)
class Computed(Generic[Result]):
    """A result and how long its two steps took; waiting is not counted."""

    result: Result
    load_seconds: float
    compute_seconds: float


class Prefetcher(Generic[Item, Loaded, Result]):
    """The threads around one device: some load items, others compute on them in the order of submission.

    Any number of threads may be in :meth:`run`. Their runs take the device one after another, each whole;
    the next run's items are loaded while the last ones of the run before it are computed.
    """

    def __init__(
        self,
        load: Callable[[Item], Loaded],
        compute: Callable[[Loaded, Item], Result],
        *,
        loaders: int,
        computers: int,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        """Make the threads, in each of which ``initializer`` runs first.

        ``load`` runs in ``loaders`` of them, ``compute`` in ``computers``: one for a device that must not be
        shared.
        """
        self._load = load
        self._compute = compute
        self._loaders = ThreadPoolExecutor(loaders, thread_name_prefix="load", initializer=initializer)
        self._computers = ThreadPoolExecutor(computers, thread_name_prefix="compute", initializer=initializer)
        self.ahead = loaders + computers
        """Items of one run that are loaded or computed at a time: enough for every thread to have one."""
        self._turn = Lock()

    def __enter__(self) -> "Prefetcher[Item, Loaded, Result]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what has begun and drop the rest; a :meth:`run` that is under way raises."""
        self._loaders.shutdown(cancel_futures=True)
        self._computers.shutdown(cancel_futures=True)

    def run(self, items: Iterable[Item]) -> Iterator[Computed[Result]]:
        """Results in the order of ``items``; an error comes where its item's result would have come.

        A caller that takes no more results keeps other runs waiting.
        """
        waiting: deque[Future[Computed[Result]]] = deque()
        try:
            with self._turn:
                for item in items:
                    if len(waiting) == self.ahead:
                        yield waiting.popleft().result()
                    waiting.append(self._submit(item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _submit(self, item: Item) -> "Future[Computed[Result]]":
        loaded = self._loaders.submit(timed_call, self._load, item)
        return self._computers.submit(self._compute_loaded, loaded, item)

    def _compute_loaded(self, loaded: "Future[tuple[Loaded, float]]", item: Item) -> Computed[Result]:
        content, load_seconds = loaded.result()
        result, compute_seconds = timed_call(self._compute, content, item)
        return Computed(result=result, load_seconds=load_seconds, compute_seconds=compute_seconds)
