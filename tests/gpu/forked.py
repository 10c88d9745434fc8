"""A call in a process of its own that need not load the libraries again: a fork of this one.

Loading them takes as long as some of the parts. A fork may use the GPU as long as this process has not.
"""

import os
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

POLL_S = 0.02


class PartError(Exception):
    """A process failed; what it had found until then is kept."""

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


def call_forked(
    call: Callable[[], object], limit: float, folder: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Both output streams of a call in a fork, in a folder and with additions to the environment.

    Raises:
        PartError: it raised, exited with another code than 0, or took longer than ``limit`` seconds.
    """
    with tempfile.TemporaryFile() as log:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _run_child(call, log.fileno(), folder, environment or {})
        code = _wait(child, time.monotonic() + limit)
        # With whatever it started and left behind.
        _kill_group(child)
        if code is None:
            os.waitpid(child, 0)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if code is None:
        raise PartError(f"stopped after {limit:.0f} s\n{output}")
    if code:
        raise PartError(f"exit code {code}\n{output}")
    return output


def run_stage(module: str, arguments: list[str], limit: float, folder: Path, device: str) -> str:
    """A stage as ``python -m stages.MODULE ...`` runs it."""
    call = partial(_run_module, f"stages.{module}", arguments)
    return call_forked(call, limit, folder, {"LDP_DEVICE": device})


def _run_module(name: str, arguments: list[str]) -> None:
    sys.argv = [name, *arguments]
    sys.modules.pop(name, None)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_child(call: Callable[[], object], log: int, folder: Path, environment: Mapping[str, str]) -> None:
    code = 1
    try:
        os.setsid()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ.update(environment)
        call()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Nothing of the parent's is cleaned up here.
        os._exit(code)


def _wait(child: int, deadline: float) -> int | None:
    """Exit code; ``None`` if it still runs at the deadline."""
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_S)


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
