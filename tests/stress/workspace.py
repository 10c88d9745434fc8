"""A small workspace in which the real stages run in seconds, and runs in it that an experiment may kill."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "helpers"))  # as pytest does, where this is run as a script

from project import export_tree, start_repository, write_params

from recipes import Params, small_params

STAGE = "stages.cache_teacher"
VIEWS_AN_IMAGE = 2
VIEWS_PER_PARTITION = 4
WAIT_SECONDS = 600.0
"""A stage that takes longer than this hangs."""

Content = dict[str, bytes]
"""Every file of a folder, by its path there."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A process group that was started for an experiment.

    Attributes:
        pid: Of the first process, which leads the group.
        poll: The exit code, or ``None`` while it runs; negative if a signal ended it.
        log: What the group writes to standard output and standard error.
    """

    pid: int
    poll: Callable[[], int | None]
    log: Path

    def wait(self) -> int:
        """Wait for the first process; returns its exit code."""
        return wait_until(self.poll, f"the run {self.pid} to end")

    def text(self) -> str:
        """What has been logged so far; progress bars end their lines like all others."""
        return self.log.read_text(errors="replace").replace("\r", "\n")

    def last_line(self) -> str:
        lines = self.text().strip().splitlines()
        return lines[-1] if lines else ""

    def kill(self) -> None:
        """SIGKILL the whole group, as a machine that runs out of memory or a batch system does."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


def wait_until(ask: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Ask every 2 ms until the answer is not ``None``."""
    end = time.monotonic() + seconds
    while (answer := ask()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.002)
    return answer


def wait_for(run: Run, condition: Callable[[], bool]) -> None:
    """Wait until something holds, or the run has ended."""
    wait_until(lambda: True if condition() or run.poll() is not None else None, f"run {run.pid}")


def environment(**changes: str) -> dict[str, str]:
    """Of a stage: one thread, no GPU, this Python first, DVC's site cache beside the experiment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    fixed = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "LDP_DEVICE": "cpu", "PATH": path}
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LDP_LOG")}
    return {**kept, **fixed, **changes}


def start(folder: Path, log: Path, *command: str, **changes: str) -> Run:
    """Start a command in a session, and so a process group, of its own."""
    site_cache = {"DVC_SITE_CACHE_DIR": str(folder.parent / "dvc_site_cache")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**site_cache, **changes),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return Run(pid=process.pid, poll=process.poll, log=log)


def start_stage(folder: Path, log: Path, **changes: str) -> Run:
    """`python -m stages.cache_teacher`."""
    return start(folder, log, sys.executable, "-m", STAGE, **changes)


def start_dvc(folder: Path, log: Path, **changes: str) -> Run:
    """`dvc repro cache_teacher`."""
    return start(folder, log, sys.executable, "-m", "dvc", "repro", "cache_teacher", **changes)


def stage_process(run: Run) -> int | None:
    """The process of the stage itself inside a run of DVC; ``None`` while it has not started."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _is_stage(entry) and session_of(int(entry.name)) == run.pid:
            return int(entry.name)
    return None


def session_members(run: Run) -> list[int]:
    """World of a run's session that are still there."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if session_of(pid) == run.pid]


def session_of(pid: int) -> int | None:
    """Session of a living process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[3])


def _is_stage(entry: Path) -> bool:
    try:
        arguments = (entry / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return arguments[1:3] == [b"-m", STAGE.encode()]


def params_of(partitions: int) -> Params:
    """Parameters of a store with so many partitions, and with dense arrays."""
    params = small_params(partitions, VIEWS_PER_PARTITION, VIEWS_AN_IMAGE)
    params["name"] = "stress"  # recipes/smoke is in the workspace, too
    params["cache_teacher"]["dense"] = {"floor": 0.005}
    return params


@contextmanager
def temporary_folder(keep: Path | None) -> Iterator[Path]:
    """A new folder, removed at the end unless the caller names one to keep."""
    if keep:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="ldp_stress_") as folder:
        yield Path(folder)


def clone(folder: Path, partitions: int) -> Path:
    """The working tree as git would clone it, with small parameters, after `dvc repro prepare_teacher`."""
    workspace = export_tree(folder / "workspace")
    write_params(workspace, params_of(partitions))
    start_repository(workspace)
    run = start(workspace, folder / "prepare.log", sys.executable, "-m", "dvc", "repro", "prepare_teacher")
    if run.wait():
        raise RuntimeError(f"the workspace cannot be prepared:\n{run.text()[-2000:]}")
    return workspace


def content_of(folder: Path) -> Content:
    """Every file below ``folder``: two stores are the same to the byte if these are equal."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> str:
    """What tells two stores apart, in one line; empty if nothing does."""
    names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return ", ".join(f"{name} ({_difference(found.get(name), expected.get(name))})" for name in names[:3])


def _difference(found: bytes | None, expected: bytes | None) -> str:
    if found is None or expected is None:
        return "missing" if found is None else "unexpected"
    return "other bytes"


RESUMING = re.compile(r"resuming: (\d+) of (\d+) partitions were finished")


def resumed_partitions(run: Run) -> int | None:
    """How many partitions a run found finished; ``None`` if it was killed before it looked."""
    text = run.text()
    found = RESUMING.search(text)
    if found:
        return int(found[1])
    return 0 if "\ncache:" in text else None
