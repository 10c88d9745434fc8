"""A process has one server that forks for it, and who asks first decides what it has loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver


@contextmanager
def own_fork_server(preloaded: Sequence[str] = ()) -> Iterator[None]:
    """Another server, until the block ends: that of other tests has loaded other modules."""
    server = forkserver._forkserver
    before = server._preload_modules
    server._stop()
    server.set_forkserver_preload(list(preloaded))
    yield
    server._stop()
    server._preload_modules = before
