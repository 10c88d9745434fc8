"""Processes that belong together end together."""

import ctypes
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of ``prctl`` (Linux): a signal for this process when its parent dies, however it dies."""


def die_with_parent() -> None:
    """Else killing the process that started this one would leave it working, and holding its locks."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP; never where the kernel does not say so."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False
