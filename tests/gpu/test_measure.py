"""What a day with a GPU runs, tried out on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_part_that_fails_stops_no_other_and_is_on_the_page_with_what_it_wrote(tmp_path: Path) -> None:
    given = ["--device", "cpu", "--recipe", "recipes/smoke", "--only", "report", "prepare_data"]
    subprocess.run([sys.executable, "tests/gpu/measure.py", tmp_path, *given], cwd=ROOT, check=True)
    parts = json.loads((tmp_path / "gpu.json").read_text())
    assert [(name, part["outcome"]) for name, part in parts.items()] == [
        ("report", "exit 1"),
        ("prepare_data", "passed"),
    ]
    assert (tmp_path / "runs/smoke/data/train").is_dir()
    page = (tmp_path / "gpu.md").read_text()
    assert parts["report"]["output"] in page
    assert "| prepare_data |" in page
