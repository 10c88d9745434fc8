"""What lies on the disk after a kill, found out without the library: JSON, sizes and sha256 alone."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workspace import Run

OUTPUT = Path("runs/stress/cache/targets.zarr")
SCRATCH = Path("scratch")
RECORDS = "partitions"
STORE = "store.zarr"

PLAN, INIT, PARTITIONS, FINALISE, AFTER = PHASES = ("plan", "init", "partitions", "finalise", "after")
"""Of a run: ``plan`` includes starting Python and DVC, ``after`` is what follows once the store has moved."""

LAID_OUT = re.compile(r"^store: \d+ views", re.MULTILINE)
"""What a stage logs when it knows all views."""

Identity = tuple[int, int]
"""Inode and time of modification in ns: a file that was written again has others."""


@dataclass(frozen=True, kw_only=True)
class DiskState:
    """What a kill left.

    Attributes:
        finished: Identity of the completion record of each partition whose record and shards are whole.
        damaged: Partitions with a record that is not readable, or whose shards are not as it says.
        partitions: Of the store in the scratch folder; ``None`` if there is none.
        scratch: Whether there is a scratch folder.
        output: Inode of the output's folder, or ``None`` if it is not there.
    """

    finished: Mapping[int, Identity]
    damaged: frozenset[int]
    partitions: int | None
    scratch: bool
    output: int | None


def scratch_folders(workspace: Path) -> list[Path]:
    """Scratch folders of stores; training has its own beside them."""
    root = workspace / SCRATCH
    return sorted(path for path in root.iterdir() if path.name != "training") if root.is_dir() else []


def record_files(scratch: Path) -> list[Path]:
    """Completion records, by partition."""
    return sorted((scratch / RECORDS).glob("p*.json"))


def count_records(workspace: Path) -> int:
    """Completion records in all scratch folders; cheap enough to ask all the time."""
    return sum(len(record_files(scratch)) for scratch in scratch_folders(workspace))


def examine(workspace: Path) -> DiskState:
    """The state of a workspace with one scratch folder, or none."""
    folders = scratch_folders(workspace)
    assert len(folders) < 2, f"expected one scratch folder, but got {folders}"
    finished: dict[int, Identity] = {}
    damaged: set[int] = set()
    for path in record_files(folders[0]) if folders else []:
        index = int(path.stem[1:])
        if is_whole(folders[0] / STORE, path):
            finished[index] = identity(path)
        else:
            damaged.add(index)
    return DiskState(
        finished=finished,
        damaged=frozenset(damaged),
        partitions=planned_partitions(folders[0]) if folders else None,
        scratch=bool(folders),
        output=output_identity(workspace),
    )


def planned_partitions(scratch: Path) -> int | None:
    """Partitions of the store that was begun."""
    path = scratch / STORE / "zarr.json"
    if not path.exists():
        return None
    schema = json.loads(path.read_text())["attributes"]["schema"]
    return -(-int(schema["views"]) // int(schema["views_per_partition"]))


def is_whole(store: Path, record: Path) -> bool:
    """Whether a record is readable, and every shard is as it says."""
    try:
        document = json.loads(record.read_bytes())
    except ValueError:
        return False
    return all(_matches(store / name, shard) for name, shard in document["shards"].items())


def _matches(path: Path, shard: Mapping[str, Any]) -> bool:
    if not path.is_file():
        return False
    content = path.read_bytes()
    return len(content) == shard["size"] and hashlib.sha256(content).hexdigest() == shard["sha256"]


def identity(path: Path) -> Identity:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def output_identity(workspace: Path) -> int | None:
    """Inode of the output's folder."""
    output = workspace / OUTPUT
    return output.stat().st_ino if output.exists() else None


def phase_of(run: Run, state: DiskState, old_output: int | None) -> str:
    """The phase in which a run was killed, from its log and from what it left.

    Args:
        run: The killed run.
        state: What it left.
        old_output: The output's inode before the run, if an earlier one had left it.
    """
    if not LAID_OUT.search(run.text()):
        return PLAN
    if state.output not in (None, old_output):
        # The scratch folder goes last: while it is there, the store has moved and finalise has not ended.
        return FINALISE if state.scratch else AFTER
    if state.partitions is None:
        return INIT
    return FINALISE if len(state.finished) == state.partitions else PARTITIONS


def phase_now(run: Run, workspace: Path, partitions: int, old_output: int | None) -> str:
    """The phase of a run that is under way; asked all the time, so it reads no shard."""
    if not LAID_OUT.search(run.text()):
        return PLAN
    if output_identity(workspace) not in (None, old_output):
        return AFTER
    if not any((scratch / STORE).exists() for scratch in scratch_folders(workspace)):
        return INIT
    return FINALISE if count_records(workspace) >= partitions else PARTITIONS
