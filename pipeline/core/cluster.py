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
from typing import TypeVar

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed
from distributed.comm.core import CommClosedError
from distributed.deploy.spec import close_clusters
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.scheduler import KilledWorker
from distributed.security import Security
from distributed.utils import LoopRunner
from tornado.ioloop import IOLoop

from pipeline.core.errors import CacheError, ConfigError

T = TypeVar("T")

CONNECT_SECONDS, SLOW_SECONDS, START_SECONDS = 10, 60, 300
"""For a scheduler to answer, and for workers of this machine to start: until that is logged, and given up."""
NO_WORKER_SECONDS = 60
"""How long a running scheduler may be without any worker; a worker that starts anew takes some 20."""
POLL_SECONDS = 0.1
SETTINGS = {
    # A killed worker starts again, which may take longer than the 15 s after which Dask gives it up.
    "distributed.deploy.lost-worker-timeout": "1h",
    # A stopped one is noticed after once or twice as long: another does its work.
    "distributed.scheduler.worker-ttl": "25s",
    # Workers decode in processes of their own, which daemons may not have; they end with this one anyhow.
    "distributed.worker.daemon": False,
    "distributed.worker.profile.enabled": False,
}

logger = logging.getLogger(__name__)


@contextmanager
def local_cluster(environments: Sequence[Mapping[str, str]], threads: int) -> Iterator[Client]:
    """Start a worker process with each of the ``environments`` added to its own, and stop them at the end.

    A process runs as many tasks at a time as it has ``threads``, is started again if it dies, and dies with
    this one, however that dies. A ``CacheError`` if they do not start.
    """
    _quieten()
    # A client runs code as this user: only what has this run's key can connect.
    security = Security.temporary()
    host = {"host": "127.0.0.1", "protocol": "tls", "security": security, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": host | {"dashboard": False}}
    worker = {"nthreads": threads, "memory_limit": 0, "death_timeout": START_SECONDS, "dashboard": False}
    options = [host | worker | {"silence_logs": logging.CRITICAL, "env": {**each}} for each in environments]
    workers = {number: {"cls": Nanny, "options": each} for number, each in enumerate(options)}
    logger.info("starting %d worker processes", len(workers))
    late = "the worker processes have not started after %d s: are they stopped, or their disk asleep?"
    slow = Timer(SLOW_SECONDS, logger.warning, (late, SLOW_SECONDS))
    with dask.config.set(SETTINGS), _event_loop() as loop:
        slow.start()
        try:
            cluster = SpecCluster(scheduler=scheduler, workers=workers, loop=loop, security=security)
        except BaseException as error:
            # Dask would try, in vain, to close what has not begun, and Python wait for it.
            atexit.unregister(close_clusters)
            for process in active_children():
                process.kill()
            if not isinstance(error, Exception):
                raise
            wanted = f"expected worker processes to start within {START_SECONDS} s"
            raise CacheError(f"{wanted}, but they do not: {error}") from error
        finally:
            slow.cancel()
        with cluster, Client(cluster, set_as_default=False) as client:
            yield client


@contextmanager
def _event_loop() -> Iterator[IOLoop]:
    """Dask's thread, which ignores Ctrl-C as do the processes that it starts: this one ends them."""
    # It would unblock the signal in the thread that starts it.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    runner = LoopRunner()
    runner.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def existing_cluster(address: str) -> Iterator[Client]:
    """Use the workers of a running scheduler and leave them running; a ``ConfigError`` if none answers."""
    _quieten()
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        message = f"expected a Dask scheduler at {address}, but none answers within {CONNECT_SECONDS} s"
        raise ConfigError(message) from error
    with client:
        logger.info("using the workers of %s", address)
        client.wait_for_workers(1)
        yield client


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
    remaining, running = iter(arguments), as_completed(loop=client.loop)
    known: set[str] = set()
    seen = time.monotonic()
    try:
        while True:
            workers = set(client.nthreads())
            for address in sorted(known - workers):
                logger.warning("worker %s is gone; what it was at is done again", address)
            known, seen = workers, time.monotonic() if workers else seen
            if time.monotonic() - seen > NO_WORKER_SECONDS:
                raise CacheError("all workers are gone, and none has come back; run again to go on")
            # With no worker left, one task waits for the next.
            room = max(1, per_worker * len(known)) - running.count()
            for argument in islice(remaining, max(0, room)):
                # Two attempts more of one that raises; one whose worker dies has three anyhow.
                key = f"{label}-{argument}"
                running.add(client.submit(function, argument, key=key, pure=False, retries=2))
            if running.is_empty():
                return
            if running.has_ready():
                yield next(running).result()
            else:
                time.sleep(POLL_SECONDS)
    except KilledWorker as error:
        died = f"{error.allowed_failures + 1} workers died of it"
        raise CacheError(f"{error.task}: {died}, for want of memory perhaps") from error
    except (CancelledError, CommClosedError) as error:
        raise CacheError("the Dask scheduler went away; run again: what is finished stays") from error


def _quieten() -> None:
    """Let Dask log what is wrong, and not what it is doing."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.ERROR)
