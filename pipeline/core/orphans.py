"""Processes that belong together end together, and keep the memory that they free."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread, current_thread, main_thread

PR_SET_PDEATHSIG = 1
"""Option of Linux's ``prctl``: a signal for this process when its parent dies, however it dies."""
M_TRIM_THRESHOLD, M_MMAP_MAX, NEVER = -1, -4, 2**31 - 1
"""Options of glibc's ``mallopt``, and a size that nothing has."""


def keep_freed_memory() -> None:
    """Use freed megabytes again: asking for them anew is a fifth of a forward pass at 1333x800 on the CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)


def die_with_parent() -> None:
    """Else killing the process that started this one would leave it working, and holding its locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def begin_helper(initializer: Callable[[], None] | None = None) -> None:
    """In a process of a pool: end with the parent, also if that was killed; leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
    keep_freed_memory()
    if initializer:
        initializer()


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let Ctrl-C take effect at the end: one that comes while a process forks is printed and then lost."""
    if current_thread() is not main_thread():  # which alone is interrupted
        yield
        return
    pressed: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            signal.raise_signal(signal.SIGINT)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP; never where the kernel does not say so."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False
