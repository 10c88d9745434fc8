"""Tasks in worker processes, of this machine or of a scheduler that is there already (Dask distributed)."""

import atexit
import logging
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import active_children, resource_tracker
from threading import Timer
from typing import TYPE_CHECKING, Any, TypeVar

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from distributed.comm.core import CommClosedError
from distributed.deploy.spec import close_clusters
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker, NoWorkerError
from distributed.security import Security
from distributed.utils import LoopRunner

from pipeline.core.errors import CacheError, ConfigError

if TYPE_CHECKING:
    from tornado.ioloop import IOLoop

T = TypeVar("T")

LOCALHOST = "127.0.0.1"
CONNECT_SECONDS = 10
"""How long a scheduler may take to answer."""

NO_WORKER_SECONDS = 60
"""How long a running scheduler may be without any worker; a worker that starts anew takes some 20."""

SLOW_SECONDS, START_SECONDS = 60, 300
"""How long worker processes of this machine may take to start before that is said, and given up."""

NO_WORKERS = "all workers are gone, and none has come back; run again: what is finished stays"

POLL_SECONDS = 0.05
WATCH_SECONDS = 5

RETRIES = 2
"""A task that raises is repeated as often; one whose worker dies, up to three times anyhow."""

SETTINGS = {
    # A killed worker is started again, which may take longer than the 15 s after which Dask gives it up.
    "distributed.deploy.lost-worker-timeout": "1h",
    # One that is stopped, or hangs, is noticed after once or twice as long: another does its work.
    "distributed.scheduler.worker-ttl": "25s",
    # If none can be started any more, tasks fail instead of waiting for ever.
    "distributed.scheduler.no-workers-timeout": "10m",
    # Workers decode in processes of their own, which daemons may not have; they end with this one anyhow.
    "distributed.worker.daemon": False,
    # A sampling profiler.
    "distributed.worker.profile.enabled": False,
}

logger = logging.getLogger(__name__)


@contextmanager
def local_cluster(environments: Sequence[Mapping[str, str]], threads: int) -> Iterator[Client]:
    """Start a worker process with each of the ``environments`` added to its own, and stop them at the end.

    A process runs as many tasks at a time as it has ``threads``, is started again if it dies, and dies with
    this one, however that dies.
    """
    _quieten()
    # A client runs code as this user: only what has this run's key can connect.
    security = Security.temporary()
    host = {
        "host": LOCALHOST,
        "protocol": "tls",
        "security": security,
        "dashboard": False,
        "dashboard_address": f"{LOCALHOST}:0",
    }
    worker = {**host, "nthreads": threads, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    worker["death_timeout"] = START_SECONDS
    specs = {
        number: {"cls": Nanny, "options": {**worker, "env": dict(environment)}}
        for number, environment in enumerate(environments)
    }
    logger.info("starting %d worker processes", len(specs))
    scheduler = {"cls": Scheduler, "options": host}
    with (
        dask.config.set(SETTINGS),
        _event_loop() as loop,
        _start(scheduler=scheduler, workers=specs, loop=loop, security=security) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _start(**options: Any) -> SpecCluster:
    said = "the worker processes have not started after %d s: are they stopped, or their disk asleep?"
    slow = Timer(SLOW_SECONDS, logger.warning, (said, SLOW_SECONDS))
    slow.start()
    try:
        return SpecCluster(**options)
    except BaseException as error:  # among Dask's is an AssertionError, where a process is stopped meanwhile
        # Dask would try, in vain, to close what has not begun, and Python wait for it.
        atexit.unregister(close_clusters)
        for process in active_children():
            process.kill()
        if isinstance(error, Exception):
            raise CacheError(
                f"expected worker processes to start within {START_SECONDS} s, but they do not: {error}"
            ) from error
        raise
    finally:
        slow.cancel()


@contextmanager
def _event_loop() -> Iterator["IOLoop"]:
    """Dask's thread, which ignores Ctrl-C as do the processes that it starts: this one ends them."""
    # Started here, for it unblocks the signal in the thread that starts it.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    runner = LoopRunner()
    try:
        runner.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def existing_cluster(address: str) -> Iterator[Client]:
    """Use the workers of a running scheduler and leave them running; a ``ConfigError`` if none answers."""
    with connect(address) as client:
        if not client.nthreads():
            logger.info("waiting for a worker of %s", address)
            client.wait_for_workers(1)
        yield client


def connect(address: str) -> Client:
    """A client of a running scheduler; a ``ConfigError`` if none answers."""
    _quieten()
    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected a Dask scheduler at {address}, but none answers within {CONNECT_SECONDS} s"
        ) from error


@contextmanager
def registered(client: Client, plugin: WorkerPlugin) -> Iterator[str]:
    """Give every worker, also those that come later, a plugin; returns the name under which it is there."""
    name = f"{type(plugin).__name__}-{uuid.uuid4().hex[:8]}"
    client.register_plugin(plugin, name=name)
    try:
        yield name
    finally:
        # It may be the lost scheduler that ended the run.
        with suppress(OSError, CancelledError):
            client.unregister_worker_plugin(name)


def run_tasks(
    client: Client, function: Callable[[int], T], arguments: Sequence[int], *, label: str, per_worker: int
) -> Iterator[T]:
    """Results of ``function`` for each of ``arguments``, in any order; it may run twice, and is small.

    Each worker is handed ``per_worker`` tasks at a time, so that all end together. A ``CacheError`` if a
    task's workers died again and again, none is left, or the scheduler went away.
    """
    remaining = iter(arguments)
    running = as_completed(loop=client.loop)
    known: set[str] = set()
    try:
        while True:
            workers = set(client.nthreads())
            for address in sorted(known - workers):
                logger.warning("worker %s is gone; what it was at is done again", address)
            known = workers
            # With no worker left, one task waits for the next.
            room = max(1, per_worker * len(known)) - running.count()
            for argument in islice(remaining, max(0, room)):
                key = f"{label}-{argument}"
                running.add(client.submit(function, argument, key=key, pure=False, retries=RETRIES))
            if running.is_empty():
                return
            _wait(client, running)
            yield next(running).result()
    except KilledWorker as error:
        raise CacheError(
            f"{error.task}: {error.allowed_failures + 1} workers died of it, for want of memory perhaps"
        ) from error
    except NoWorkerError as error:
        raise CacheError(NO_WORKERS) from error
    except (CancelledError, CommClosedError) as error:
        raise CacheError("the Dask scheduler went away; run again: what is finished stays") from error


def _wait(client: Client, running: "as_completed") -> None:
    """Wait for the next result, but no longer than ``NO_WORKER_SECONDS`` for a worker."""
    alone_since: float | None = None
    watched = time.monotonic()
    while not running.has_ready():
        time.sleep(POLL_SECONDS)
        if time.monotonic() < watched + WATCH_SECONDS:
            continue
        watched = time.monotonic()
        if client.nthreads():
            alone_since = None
        elif alone_since is None:
            alone_since = watched
            logger.warning("no worker is left; waiting %d s for one", NO_WORKER_SECONDS)
        elif watched - alone_since > NO_WORKER_SECONDS - 2 * WATCH_SECONDS:
            raise CacheError(NO_WORKERS)


def _quieten() -> None:
    """Let Dask log what is wrong, and not what it is doing."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.ERROR)
