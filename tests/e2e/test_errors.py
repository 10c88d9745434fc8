"""Errors as a shell sees them: in processes of their own, by exit code and standard error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from project import attempt

from recipes import ROOT


def stage(folder: Path, *arguments: str, **changes: str) -> tuple[int, str]:
    """Exit code and output of ``python -m stages.NAME ...``."""
    return attempt(folder, "python", "-m", *arguments, PYTHONPATH=str(ROOT), **changes)


def test_an_error_is_one_line_and_its_place_is_shown_on_request(tmp_path: Path) -> None:
    expected = "error: params.yaml: expected a parameter file, but there is none\n"
    assert stage(tmp_path, "stages.prepare_data") == (1, expected)
    code, output = stage(tmp_path, "stages.prepare_data", LDP_LOG="DEBUG")
    assert code == 1
    assert "Traceback" in output
    assert output.endswith(expected)
    assert not list(tmp_path.iterdir())


def test_a_reader_that_has_seen_enough_ends_a_command_quietly(own_project: Path) -> None:
    """As in `ldp store info | true`."""
    unread, output = os.pipe()
    os.close(unread)
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline.cli.main", "store", "info"],
        cwd=own_project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=output,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(output)
    assert finished.stderr == b""
    assert finished.returncode == 128 + signal.SIGPIPE
