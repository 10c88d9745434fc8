"""The command for the day with a GPU, tried out on the CPU: no slip of a finger should waste that day."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).parent / "run.py"


def parts_of(folder: Path, budget: int, *only: str) -> dict[str, Any]:
    """Parts by name, after a run in small."""
    options = ["--device", "cpu", "--small", "--budget", str(budget), "--only", *only]
    command = [sys.executable, str(RUN), "--out", str(folder), *options]
    subprocess.run(command, check=False, capture_output=True)
    assert (folder / "gpu.md").read_text().startswith("| part |")
    return {part["name"]: part for part in json.loads((folder / "gpu.json").read_text())["parts"]}


@pytest.mark.slow
def test_every_part_works(tmp_path: Path) -> None:
    names = ["facts", "setup", "cache", "teacher", "steps", "evaluation", "default"]
    parts = parts_of(tmp_path, 600, "loading", *names)
    assert set(parts) == {"loading of libraries", "loading", *names}
    for part in parts.values():
        assert part["status"] == "ok", part["error"]
    assert parts["steps"]["result"]["bfloat16: ld, from the store"]["to_peer"] > 0
    assert parts["cache"]["result"]["float32"]["per_s"] > 0
    assert "AP" in parts["default"]["result"]["metrics"]["teacher"]


@pytest.mark.slow
def test_a_part_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    parts = parts_of(tmp_path, 300, "facts", "teacher")
    assert parts["facts"]["status"] == "ok"
    assert parts["teacher"]["status"] == "failed"  # nothing was set up
    assert "teacher.safetensors" in parts["teacher"]["error"]


def test_what_does_not_fit_the_budget_is_left_out(tmp_path: Path) -> None:
    part = parts_of(tmp_path, 20, "default")["default"]
    assert part["status"] == "left out"
    assert part["error"].startswith("needs about 90 s")
