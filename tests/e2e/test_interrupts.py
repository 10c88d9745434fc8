"""Ctrl-C in every stage: exit code 130, no traceback, and the next run makes what it would have made."""

import shutil
from functools import partial
from pathlib import Path

import pytest
from blank import blank_pictures
from finished import call, without_times
from forked import calls_of, interrupt_at, start
from store_cases import content_of

STAGES = ("prepare_data", "prepare_teacher", "evaluate ld", "cache_teacher", "verify_cache", "report")
CASES = [*((stage, "0") for stage in STAGES), ("train_student ld", "0"), ("train_student ld", "2")]
"""With the number of processes that decode."""
SHARES = (0.1, 0.6)
"""When Ctrl-C is pressed, in calls of functions: a busy machine does not change how many a stage takes."""


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
