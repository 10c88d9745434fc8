"""The tiny project with a store of many partitions, and runs of the real stage that an experiment may kill.

What lies on the disk after a kill is found out without the library: by JSON, sizes and sha256 alone.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

from finished import FOLDER
from forked import Fate, Run, start, start_process, stop_after
from project import edit_params

FACTOR = int(os.environ.get("LDP_STRESS", "1"))
"""How many times larger experiments are than in a run of all tests."""
OUTPUT = FOLDER.store
PARTITIONS = 16
RESUMING = re.compile(r"resuming: (\d+) of (\d+) partitions were finished")


def without_store(folder: Path) -> Path:
    """A copy of the tiny project in which the next store is to have a partition of each view."""
    for place in (folder / "scratch", folder / OUTPUT.parent):
        shutil.rmtree(place, ignore_errors=True)
    changes = {"views_per_partition": 1, "batch_size": 1, "dense": {"floor": 0.005}}
    edit_params(folder, lambda params: params["cache_teacher"].update(changes))
    return folder


def new_log(workspace: Path) -> Path:
    return workspace.with_name(f"{len(list(workspace.parent.glob('*.log')))}.log")


def begin(workspace: Path, fate: Fate | None = None) -> Run:
    """Start the stage."""
    return start("cache_teacher", workspace, new_log(workspace), fate)


def begin_and_stop(workspace: Path, partitions: int) -> Run:
    """Run the stage until so many partitions are finished; it stands still when this returns."""
    run = begin(workspace, partial(stop_after, "pipeline.store.writer.writer.write_partition", partitions))
    run.wait_until_stopped()
    assert partitions <= len(records(workspace)) < PARTITIONS
    return run


def begin_process(workspace: Path, *arguments: str, **variables: str) -> Run:
    """A real process: ``python -m ARGUMENTS``, which DVC, and Dask to start its workers, must be."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", *arguments]
    return start_process(command, workspace, new_log(workspace), PATH=path, **variables)


def complete(workspace: Path) -> int | None:
    """A run that nothing stands in the way of; how many partitions it found finished."""
    run = begin(workspace)
    assert run.wait() == 0, run.text()[-1000:]
    return resumed(run)


def resumed(run: Run) -> int | None:
    """How many partitions a run found finished; ``None`` if it was killed before it looked."""
    text = run.text()
    found = RESUMING.search(text)
    return int(found[1]) if found else 0 if "\ncache:" in text else None


def scratch_folders(workspace: Path) -> list[Path]:
    """Scratch folders of stores; training has its own beside them."""
    return [path for path in sorted(workspace.glob("scratch/*")) if path.name != "training"]


def records(workspace: Path) -> list[Path]:
    """Completion records in all scratch folders; cheap enough to ask all the time."""
    return [
        path for folder in scratch_folders(workspace) for path in sorted(folder.glob("partitions/p*.json"))
    ]


def finished(workspace: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of modification of each record that is whole, and all of whose shards are."""
    assert len(scratch_folders(workspace)) < 2, scratch_folders(workspace)
    whole = [path for path in records(workspace) if is_whole(path.parents[1] / "store.zarr", path)]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in whole}


def is_whole(store: Path, record: Path) -> bool:
    """Whether a record is readable, and every shard is as it says."""
    try:
        shards = json.loads(record.read_bytes())["shards"]
    except ValueError:
        return False
    contents = {name: (store / name).read_bytes() if (store / name).is_file() else b"" for name in shards}
    return all(
        len(content) == shards[name]["size"] and hashlib.sha256(content).hexdigest() == shards[name]["sha256"]
        for name, content in contents.items()
    )
