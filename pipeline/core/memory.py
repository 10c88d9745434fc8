"""How freed memory is kept."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of ``mallopt`` (glibc)."""
NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process use freed megabytes again, where glibc would give them back to the kernel at once.

    It would have to ask for them anew, page by page: a fifth of a forward pass at 1333x800 on the CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, NEVER)
