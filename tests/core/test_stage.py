"""What a stage says of what no stage can help."""

from pathlib import Path

import pytest

from pipeline.core import files
from pipeline.core.errors import OutputError
from pipeline.core.files import require_writable
from pipeline.core.stage import run_stage

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(CUDA), RuntimeError(CPU)])
def test_too_little_memory_is_one_line_with_the_ways_out(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    message = str(ended.value)
    assert message.startswith("error: expected enough memory, but it is used up (")
    assert "\n" not in message
    assert "LDP_MICRO_BATCH" in message


def test_any_other_error_keeps_its_place() -> None:
    def main() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run_stage(main)


def test_a_folder_that_cannot_be_written_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable(tmp_path / "runs/x")
    monkeypatch.setattr(files.os, "access", lambda path, _mode: path != tmp_path)  # as root everything may
    with pytest.raises(OutputError, match=f"a folder to write to, but {tmp_path} is read-only"):
        require_writable(tmp_path / "runs/x")
