"""Loading ahead of a device, in order and bounded."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

from pipeline.core.errors import PipelineError
from pipeline.core.orphans import begin_helper
from pipeline.core.progress import timed_call

T = TypeVar("T")
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")


class Computed(NamedTuple, Generic[Result]):
    """A result and how long its two steps took; waiting is not counted."""

    result: Result
    load_seconds: float
    compute_seconds: float


def loading_pool(loaders: int, initializer: Callable[[], None] | None = None, *, processes: bool) -> Executor:
    """Threads, or processes, to which what they call and its arguments are pickled."""
    if not processes:
        return ThreadPoolExecutor(loaders, "load", initializer)
    # Threads of torch do not survive a fork of this process.
    return ProcessPoolExecutor(loaders, get_context("forkserver"), begin_helper, (initializer,))


def load_ahead(
    pool: Executor, load: Callable[[Item], Loaded], items: Iterable[Item], ahead: int
) -> Iterator[Loaded]:
    """Load items in their order, ``ahead`` of them while one is being looked at."""
    return _in_order((pool.submit(load, item) for item in items), ahead)


def _in_order(submitted: "Generator[Future[T], None, None]", ahead: int) -> Iterator[T]:
    """Results of tasks, ``ahead`` of which are submitted beside the next one; the rest is canceled."""
    waiting: deque[Future[T]] = deque()
    try:
        for future in submitted:
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        message = "a decoding process was killed, as when the memory is used up; run again to go on"
        raise PipelineError(message) from error
    finally:
        submitted.close()
        for future in waiting:
            future.cancel()


class Prefetcher(Generic[Item, Loaded, Result]):
    """The threads around one device: some load items, others compute on them in the order of submission.

    Runs of several threads take the device one after another; the next one's first items are loaded while
    the last ones of the run before it are computed. To be closed.
    """

    def __init__(
        self,
        load: Callable[[Item], Loaded],
        compute: Callable[[Loaded, Item], Result],
        *,
        loaders: int,
        computers: int,
        initializer: Callable[[], None] | None = None,
        in_processes: bool = False,
    ) -> None:
        """Make threads that begin with ``initializer``: ``loaders``, perhaps processes, and ``computers``."""
        self._load, self._compute = load, compute
        self._loaders = loading_pool(loaders, initializer, processes=in_processes)
        self._computers = ThreadPoolExecutor(computers, "compute", initializer)
        self._threads = loaders + computers
        self._turn = Lock()

    def close(self) -> None:
        """Finish what has begun and drop the rest; a :meth:`run` that is under way raises."""
        self._loaders.shutdown(cancel_futures=True)
        self._computers.shutdown(cancel_futures=True)

    def run(self, items: Iterable[Item]) -> Iterator[Computed[Result]]:
        """Results in the order of ``items``, of which as many are under way as there are threads.

        An error comes in its item's place. A caller that takes no more results keeps other runs waiting.
        """

        def submitted() -> "Generator[Future[Computed[Result]], None, None]":
            with self._turn:
                for item in items:
                    loaded = self._loaders.submit(timed_call, self._load, item)
                    yield self._computers.submit(self._compute_loaded, loaded, item)

        return _in_order(submitted(), self._threads - 1)

    def _compute_loaded(self, loaded: "Future[tuple[Loaded, float]]", item: Item) -> Computed[Result]:
        content, load_seconds = loaded.result()
        result, compute_seconds = timed_call(self._compute, content, item)
        return Computed(result, load_seconds, compute_seconds)
