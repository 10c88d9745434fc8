"""Stages in process groups of their own that begin in a tenth of a second: forked from one with torch.

What runs is the stage's own ``main``, in the folder and with the environment that are asked for; only
Python's start and the imports, ten seconds of CPU, are spared. A stage's training processes are forked, too.
"""

import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing import forkserver, util
from pathlib import Path
from typing import Any

import psutil
import pytest
from blank import blank_pictures
from finished import STAGES, call, working_in

from pipeline.core.orphans import is_stopped

PRELOADED = (
    *("finished", "shared_runs", "pipeline.teacher.workers"),
    *dict.fromkeys(f"stages.{stage.split()[0]}" for stage in STAGES),
)
WAIT_SECONDS = 300.0
"""A stage that takes longer than this hangs."""

_context = multiprocessing.get_context("forkserver")
_server: list[int] = []
"""The server that has loaded these modules, if it has been started."""


def ensure_loaded() -> None:
    """A process has one server that forks for it, and whoever asks first decides what it has loaded."""
    if _server != [forkserver._forkserver._forkserver_pid]:
        forkserver._forkserver._stop()
        _context.set_forkserver_preload(list(PRELOADED))
        forkserver.ensure_running()
        _server[:] = [forkserver._forkserver._forkserver_pid]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A process group that was started by a test, led by the first process, and all that it writes."""

    pid: int
    poll: Callable[[], int | None]
    """The exit code, or ``None`` while it runs; negative if a signal ended it."""
    log: Path

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for the first process; returns its exit code."""
        self.wait_for(lambda: False, seconds)
        code = self.poll()
        assert code is not None
        return code

    def wait_for(self, condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until something holds, or the run has ended; one that takes longer is killed."""
        end = time.monotonic() + seconds
        while not condition() and self.poll() is None:
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
                raise AssertionError(f"waited {seconds} s for a run: {self.text()[-1000:]}")
            time.sleep(0.002)

    def wait_until_stopped(self) -> None:
        """Until the first process has stopped itself, see ``start``."""
        self.wait_for(lambda: is_stopped(self.pid))
        assert self.poll() is None, self.text()[-1000:]

    def text(self) -> str:
        """What has been logged so far; progress bars end their lines like all others."""
        return self.log.read_text(errors="replace").replace("\r", "\n") if self.log.exists() else ""

    def last_line(self) -> str:
        return (self.text().strip().splitlines() or [""])[-1]

    def signal(self, number: signal.Signals) -> None:
        """As a terminal sends it: to every process of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the whole group, as a machine that runs out of memory or a batch system does."""
        self.signal(signal.SIGKILL)
        self.wait()

    def members(self) -> list[int]:
        """Living processes of its session, by their start."""
        pids = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    pids.append(process.pid)
        return pids


Fate = Callable[[], None]
"""What befalls a run, settled as it begins, at a moment that does not depend on how busy the machine is."""


def stop_after(name: str, calls: int) -> None:
    """Let all stop (SIGSTOP) after so many calls of a function, as ``package.module.name``."""
    function, numbers = pkgutil.resolve_name(name), count(1)

    def stopping(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        if next(numbers) == calls:
            os.kill(os.getpid(), signal.SIGSTOP)
        return result

    pytest.MonkeyPatch().setattr(name, stopping)


def interrupt_at(calls: int) -> None:
    """Press Ctrl-C at this call of a function by the first thread."""
    numbers, pid = count(1), os.getpid()

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        if event == "call" and next(numbers) == calls and os.getpid() == pid:
            os.killpg(0, signal.SIGINT)

    sys.setprofile(profile)


def start(stage: str, folder: Path, log: Path, fate: Fate | None = None, **variables: str) -> Run:
    """Start a stage, given with its arguments; it has been loaded when this returns."""
    ensure_loaded()
    process = _context.Process(target=_become, args=(stage, folder, log, fate, variables))
    process.start()
    assert process.pid is not None
    run = Run(pid=process.pid, poll=lambda: process.exitcode, log=log)
    run.wait_for(log.exists)
    return run


def _become(stage: str, folder: Path, log: Path, fate: Fate | None, variables: dict[str, str]) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # what a process has that no server has forked
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    with working_in(folder), blank_pictures(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.launch.subprocess.Popen", Member)
        patch.setattr("pipeline.training.launch.STOPPED_SECONDS", 3.0)
        for name, value in variables.items():
            patch.setenv(name, value)
        if fate:
            fate()
        _end(call(stage))


def calls_of(stage: str) -> int:
    """How many calls of functions a stage takes in its first thread, undisturbed, in this process."""
    numbers = count()
    sys.setprofile(lambda _frame, event, _argument: event == "call" and next(numbers))
    try:
        assert call(stage).code == 0
    finally:
        sys.setprofile(None)
    return next(numbers)


def _end(ended: Any) -> None:
    if ended.error:
        sys.stderr.write(f"{ended.error}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    # Its decoding processes end, and nothing of the parent's is cleaned up.
    util._exit_function()
    os._exit(ended.code)


class Member:
    """What ``subprocess.Popen([python, "-m", "stages.STAGE", ...])`` starts, as a fork of this process."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(env)
            _end(call(" ".join([command[2].removeprefix("stages."), *command[3:]])))

    def poll(self, options: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self) -> int | None:
        return self.poll(0)

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def start_process(command: Sequence[str], folder: Path, log: Path, **variables: str) -> Run:
    """Start a real process instead, with the environment of a machine without a GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LDP_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "OMP_NUM_THREADS": "1", "LDP_DEVICE": "cpu", "LDP_WORKERS": "0", **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Run(pid=process.pid, poll=process.poll, log=log)
