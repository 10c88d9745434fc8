"""Freed memory is used again."""

import subprocess
import sys

import pytest

PAGES = """
import resource
import numpy as np
from pipeline.core.orphans import keep_freed_memory
if {kept}:
    keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(100 * 2**20, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Page faults while 100 MB are filled for the second time."""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_where_that_is_wanted(*, kept: bool) -> None:
    found = subprocess.run(
        [sys.executable, "-c", PAGES.format(kept=kept)], stdout=subprocess.PIPE, check=True
    )
    assert (int(found.stdout) < 20) is kept
