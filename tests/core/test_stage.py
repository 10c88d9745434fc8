"""What a stage says of what no stage can help, and whether it uses freed memory again."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.core.paths import in_its_recipe
from pipeline.core.stage import run_stage

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(CUDA), RuntimeError(CPU)])
def test_too_little_memory_is_one_line_with_the_ways_out(error: Exception) -> None:
    with pytest.raises(SystemExit) as ended:
        run_stage(Mock(side_effect=error))
    message = str(ended.value)
    assert message.startswith("error: expected enough memory, but it is used up (")
    assert "\n" not in message
    assert "LDP_MICRO_BATCH" in message


def test_any_other_error_keeps_its_place() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        run_stage(Mock(side_effect=RuntimeError("a bug")))


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")
@pytest.mark.parametrize("kept", [True, False])
def test_freed_memory_is_kept_where_that_is_wanted(*, kept: bool) -> None:
    code = PAGES.format(kept=kept)
    faults = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert (int(faults) < 20) is kept


@pytest.mark.parametrize(
    ("message", "params", "advised"),
    [
        ("runs/mine/x: `dvc repro -f report`", "params.yaml", "`dvc repro -f recipes/mine/dvc.yaml:report`"),
        ("fetch it with `dvc pull`", "recipes/mine/params.yaml", "`dvc pull recipes/mine/dvc.yaml`"),
        ("runs/shapes/x: `dvc repro -f report`", "params.yaml", "`dvc repro -f dvc.yaml:report`"),
        ("fetch it with `dvc pull`", "params.yaml", "`dvc pull dvc.yaml`"),
    ],
)
def test_commands_of_dvc_in_a_message_name_the_stages_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, params: str, advised: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/mine").mkdir(parents=True)
    (tmp_path / "recipes/mine/dvc.yaml").touch()
    monkeypatch.setattr("sys.argv", ["verify_cache.py", "--params", params])
    assert advised in in_its_recipe(message)
