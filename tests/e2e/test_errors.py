"""How stages and commands end, as a shell sees it: in processes of their own, by exit code and output."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from blank import blank_pictures
from finished import call, without_times
from forked import calls_of, interrupt_at, start
from project import attempt
from store_cases import content_of

from recipes import ROOT

STAGES = ("prepare_data", "prepare_teacher", "evaluate ld", "cache_teacher", "verify_cache", "report")
CASES = [*((stage, "0") for stage in STAGES), ("train_student ld", "0"), ("train_student ld", "2")]
"""With the number of processes that decode."""
SHARES = (0.1, 0.6)
"""When Ctrl-C is pressed, in calls of functions: a busy machine does not change how many a stage takes."""


def test_an_error_is_one_line_and_its_place_is_shown_on_request(tmp_path: Path) -> None:
    expected = "error: params.yaml: expected a parameter file, but there is none\n"
    run = partial(attempt, tmp_path, "python", "-m", "stages.prepare_data", PYTHONPATH=str(ROOT))
    assert run() == (1, expected)
    code, output = run(LDP_LOG="DEBUG")
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


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "workers"), CASES)
def test_ctrl_c_ends_a_stage_and_loses_nothing(own_project: Path, stage: str, workers: str) -> None:
    """Whenever it comes, all outputs stay as they were; it reaches the processes that decode, too."""
    log = own_project.parent / "log"
    whole = without_times(content_of(own_project / "runs"))
    with blank_pictures():
        calls = calls_of(stage)
    for share in SHARES:
        shutil.rmtree("scratch", ignore_errors=True)
        fate = partial(interrupt_at, int(share * calls))
        assert start(stage, own_project, log, fate, LDP_WORKERS=workers).wait() == 130, log.read_text()
        assert "Traceback" not in log.read_text()
        assert without_times(content_of(own_project / "runs")) == whole
    with blank_pictures():
        assert call(stage).code == 0
    assert without_times(content_of(own_project / "runs")) == whole
