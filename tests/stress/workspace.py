"""A small workspace in which the real stage writes a store in seconds, and runs that an experiment may kill.

What lies on the disk after a kill is found out without the library: by JSON, sizes and sha256 alone.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from finished import call, working_in
from forked import Fate, Run, start, start_process
from project import export_tree, start_repository, write_params
from store_cases import content_of

from recipes import small_params

ROOT = Path(__file__).parents[2]
OUTPUT = Path("runs/stress/cache/targets.zarr")
PARTITIONS = 12
PREPARED = ("check_recipe", "prepare_data", "prepare_teacher")

PLAN, INIT, WRITE, FINALISE, AFTER = PHASES = ("plan", "init", "write", "finalise", "after")
"""Of a run: ``plan`` includes starting Python and DVC, ``after`` is what follows once the store has moved."""
LAID_OUT = re.compile(r"^store: \d+ views", re.MULTILINE)
"""What a stage logs when it knows all views."""
RESUMING = re.compile(r"resuming: (\d+) of (\d+) partitions were finished")

Content = dict[str, bytes]
"""Every file of a folder, by its path there."""


def resumed(run: Run) -> int | None:
    """How many partitions a run found finished; ``None`` if it was killed before it looked."""
    text = run.text()
    found = RESUMING.search(text)
    return int(found[1]) if found else 0 if "\ncache:" in text else None


class Tool(NamedTuple):
    """One way to run the stage: its start, in a workspace and with a log, and its own process in a run."""

    name: str
    start: Callable[[Path, Path], Run]
    stage: Callable[[Run], int | None]


def start_dvc(folder: Path, log: Path) -> Run:
    """`dvc repro cache_teacher`."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "dvc", "repro", "cache_teacher"]
    cache = str(log.parent / "dvc_site_cache")
    return start_process(command, folder, log, PATH=path, PYTHONPATH="", DVC_SITE_CACHE_DIR=cache)


def stage_within(run: Run) -> int | None:
    """The process of the stage inside a run of DVC, if there is one yet."""
    arguments = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in run.members()}
    stages = [pid for pid, words in arguments.items() if words[1:3] == [b"-m", b"stages.cache_teacher"]]
    return stages[0] if stages else None


def start_workers(folder: Path, log: Path) -> Run:
    """A real process: Dask starts its workers anew, which a forked one cannot."""
    command = [sys.executable, "-m", "stages.cache_teacher"]
    return start_process(command, folder, log, PYTHONPATH=str(ROOT), LDP_CACHE_WORKERS="2")


def start_and_stop(workspace: Path, partitions: int) -> Run:
    """Run the stage until so many partitions are finished; it stands still when this returns."""
    fate = Fate(stops=("pipeline.store.writer.writer.write_partition", partitions))
    run = start("cache_teacher", workspace, workspace.parent / f"stopped at {partitions}.log", fate)
    run.wait_until_stopped()
    assert partitions <= len(records(workspace)) < PARTITIONS
    return run


def complete(workspace: Path) -> Run:
    """A run that nothing stands in the way of."""
    run = STAGE.start(workspace, workspace.parent / "complete.log")
    assert run.wait() == 0, run.text()[-1000:]
    return run


STAGE = Tool("stage", partial(start, "cache_teacher"), lambda run: run.pid)
WORKERS = Tool("workers", start_workers, lambda run: run.pid)
DVC = Tool("dvc", start_dvc, stage_within)


def prepare(workspace: Path, tool: Tool) -> None:
    """A dataset and a teacher; for DVC, in a repository that knows them."""
    workspace.mkdir(parents=True)
    if tool is DVC:
        export_tree(workspace)
    params = small_params(PARTITIONS, 4, 2)
    params["name"] = "stress"  # recipes/smoke is in the workspace, too
    params["cache_teacher"]["dense"] = {"floor": 0.005}
    # Any precision is good enough for a teacher of one epoch: else the stage refuses it before it begins.
    params["verify_cache"].update(max_kl=1e9, max_loss_error=1e9, max_gradient_error=1e9)
    write_params(workspace, params)
    with working_in(workspace):
        for stage in PREPARED:
            ended = call(stage)
            assert ended.code == 0, ended.error
    if tool is DVC:
        start_repository(workspace)
        commit = [sys.executable, "-m", "dvc", "commit", "--force", *PREPARED]
        subprocess.run(commit, cwd=workspace, check=True, capture_output=True)


class DiskState(NamedTuple):
    """What a run left."""

    finished: Mapping[int, tuple[int, int]]
    """Inode and time of modification of the record of each partition whose record and shards are whole."""
    output: int | None
    """Inode of the output's folder, or ``None`` if it is not there."""


def scratch_folders(workspace: Path) -> list[Path]:
    """Scratch folders of stores; training has its own beside them."""
    root = workspace / "scratch"
    return sorted(path for path in root.iterdir() if path.name != "training") if root.is_dir() else []


def records(workspace: Path) -> list[Path]:
    """Completion records in all scratch folders; cheap enough to ask all the time."""
    return [
        path for folder in scratch_folders(workspace) for path in sorted(folder.glob("partitions/p*.json"))
    ]


def examine(workspace: Path) -> DiskState:
    """The state of a workspace with one scratch folder, or none."""
    assert len(scratch_folders(workspace)) < 2, scratch_folders(workspace)
    whole = [path for path in records(workspace) if is_whole(path.parents[1] / "store.zarr", path)]
    written = {int(path.stem[1:]): path.stat() for path in whole}
    finished = {index: (status.st_ino, status.st_mtime_ns) for index, status in written.items()}
    return DiskState(finished, output_of(workspace))


def output_of(workspace: Path) -> int | None:
    """Inode of the output's folder."""
    output = workspace / OUTPUT
    return output.stat().st_ino if output.exists() else None


def is_whole(store: Path, record: Path) -> bool:
    """Whether a record is readable, and every shard is as it says."""
    try:
        shards = json.loads(record.read_bytes())["shards"]
    except ValueError:
        return False
    files = [(store / name, shard) for name, shard in shards.items()]
    contents = [(path.read_bytes() if path.is_file() else b"", shard) for path, shard in files]
    return all(
        len(content) == shard["size"] and hashlib.sha256(content).hexdigest() == shard["sha256"]
        for content, shard in contents
    )


def phase_of(run: Run, workspace: Path, old_output: int | None) -> str:
    """The phase that a run is in, or was killed in; ``old_output`` is what an earlier one had left."""
    if not LAID_OUT.search(run.text()):
        return PLAN
    if output_of(workspace) not in (None, old_output):
        return AFTER
    if not any((scratch / "store.zarr").exists() for scratch in scratch_folders(workspace)):
        return INIT
    return FINALISE if len(records(workspace)) == PARTITIONS else WRITE


class Quiet(NamedTuple):
    """A run that nobody disturbs: its store, and the seconds of each phase."""

    store: Content
    seconds: Mapping[str, float]


def watch(tool: Tool, workspace: Path, log: Path) -> Quiet:
    """Run undisturbed, and note when each phase begins."""
    begun = {PLAN: time.monotonic()}
    run = tool.start(workspace, log)
    while run.poll() is None:
        begun.setdefault(phase_of(run, workspace, None), time.monotonic())
        time.sleep(0.001)
    assert run.poll() == 0, run.text()[-2000:]
    begun["end"] = time.monotonic()
    # A phase may be too short to be seen.
    later = [[begun[name] for name in (*PHASES[index + 1 :], "end") if name in begun] for index in range(5)]
    seconds = {
        phase: min(ends) - begun.get(phase, min(ends)) for phase, ends in zip(PHASES, later, strict=True)
    }
    return Quiet(content_of(workspace / OUTPUT), seconds)
