"""The stages of a recipe as processes of their own, in an order in which DVC runs them."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.paths import TEACHER
from pipeline.rehearsal.card import Spent

CODE = Path(__file__).parents[2]
"""Where the packages lie: stages that run in another folder are to be of the same code."""

STDERR = 2
KIB = 1024
"""Linux counts the peak of memory in these."""


@dataclass(frozen=True, kw_only=True)
class StageProcess:
    """One stage of ``dvc.yaml``, of one student if every student has it."""

    stage: str
    arguments: tuple[str, ...]
    """Module, and what it is given: what stands behind ``python -m``."""
    student: str | None

    @property
    def label(self) -> str:
        """As it is shown."""
        return f"{self.stage} {self.student}" if self.student else self.stage


def stage_processes(students: Iterable[str]) -> list[StageProcess]:
    """All stages of a recipe with these students."""
    names = list(students)
    return [
        _shared("prepare_data"),
        _shared("prepare_teacher"),
        StageProcess(stage="evaluate_teacher", arguments=("stages.evaluate", TEACHER), student=None),
        _shared("cache_teacher"),
        _shared("verify_cache"),
        *(_of_student("train_student", "stages.train_student", name) for name in names),
        *(_of_student("evaluate_student", "stages.evaluate", name) for name in names),
        _shared("report"),
    ]


def _shared(stage: str) -> StageProcess:
    return StageProcess(stage=stage, arguments=(f"stages.{stage}",), student=None)


def _of_student(stage: str, module: str, name: str) -> StageProcess:
    return StageProcess(stage=stage, arguments=(module, name), student=name)


def run_process(stage: StageProcess, folder: Path) -> Spent:
    """Run a stage in a folder and wait for it; all that it says goes to standard error."""
    path = os.pathsep.join(filter(None, (str(CODE), os.environ.get("PYTHONPATH"))))
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *stage.arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=STDERR,
    )
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:
        # The terminal has told the stage, too: its folder must not go before it has ended.
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    return Spent(
        exit_code=process.returncode,
        seconds=time.perf_counter() - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_bytes=_peak_bytes(usage),
    )


def _peak_bytes(usage: resource.struct_rusage) -> int | None:
    """Peak memory of a process that this one has started.

    Linux counts in what this process held when it started it, so that a smaller peak remains unknown.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * KIB if usage.ru_maxrss > own else None
