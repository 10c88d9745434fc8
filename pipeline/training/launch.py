"""A training stage in one process, or in several that share every batch.

The number of processes changes no parameter and no command: ``LDP_TRAIN_PROCESSES`` (``core.environment``).
``torchrun --nproc-per-node 4 -m stages.train_student NAME`` does the same by hand, on several machines, too.
Processes that the stage starts meet in a file and talk over this machine's loopback alone.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import distributed
from torch.distributed import FileStore  # type: ignore[attr-defined]

from pipeline.core.environment import Environment, core_count, workers
from pipeline.core.errors import ConfigError, PipelineError, explained_memory
from pipeline.core.files import make_folder
from pipeline.core.orphans import die_with_parent, is_stopped
from pipeline.core.paths import SCRATCH
from pipeline.core.stage import run_stage
from pipeline.detector.device import device
from pipeline.training.processes import SINGLE_PROCESS, Placement, World

UNFINISHED = SCRATCH / "training"
"""A folder for each unfinished run."""

TIMEOUT = timedelta(minutes=10)
"""How long processes wait for one another: the main one may be scoring detections, or writing."""

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
"""What the other processes have to say what they failed of, once one has ended: it may be the cause."""
STOPPED_SECONDS = 30.0

MEETING = "_LDP_TRAINING_MEETING"
"""Folder in which the processes of a stage find one another; set by the one that starts them."""

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}

logger = logging.getLogger(__name__)


def run_training(main: Callable[[World], None], module: str) -> None:
    """Run ``main`` in each process of a training stage; ``module`` is its name, to start it again."""

    def run() -> None:
        if "RANK" in os.environ:
            _run_member(main, _given_world())
        elif (count := Environment.read().train_processes) > 1:
            _run_members(module, count)
        else:
            main(SINGLE_PROCESS)

    run_stage(run)


def _given_world() -> World:
    """What torchrun has set for this process, or the stage that has started it.

    Raises:
        ConfigError: It is not whole, as where only a scheduler of jobs has set a part of it.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    values = [os.environ.get(name, "") for name in names]
    if all(value.isdecimal() for value in values):
        rank, count, _ = map(int, values)
        meets = MEETING in os.environ or {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
        if rank < count and (count == 1 or meets):
            return World(rank=rank, count=count)
    got = ", ".join(f"{name}={value!r}" for name, value in zip(names, values, strict=True))
    raise ConfigError(
        f"expected {', '.join(names)}, MASTER_ADDR and MASTER_PORT as torchrun sets them, but got {got}; "
        "unset RANK to train in one process"
    )


def machine(processes: World) -> Placement:
    """Where this process trains; from here on its threads use its own GPU and no other."""
    chosen, local = _own_device(processes), int(os.environ.get("LOCAL_WORLD_SIZE", processes.count))
    if chosen.type == "cuda" and chosen.index is not None:  # else the current one, which is CUDA's first
        torch.cuda.set_device(chosen)
    return Placement(
        device=chosen,
        workers=workers(local),
        processes=processes,
        micro_batch=Environment.read().micro_batch,
        local_processes=local,
    )


def _own_device(processes: World) -> torch.device:
    """One GPU a process, or the CPU for all."""
    chosen = device()
    if processes.count == 1 or chosen.type != "cuda":
        return chosen
    if chosen.index is not None:
        raise ConfigError(
            f"LDP_DEVICE: expected cuda or cpu for {processes.count} training processes, but got {chosen}"
        )
    own, visible = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if visible == 1 and os.environ.get("SLURM_NTASKS") == str(processes.count):
        return torch.device("cuda", 0)  # Slurm shows each of its tasks the one GPU that it has
    if own >= visible:
        raise ConfigError(
            f"expected a GPU for each training process, but got {visible} for {processes.count}; take fewer "
            "processes, or LDP_DEVICE=cpu"
        )
    return torch.device("cuda", own)


def _run_members(module: str, count: int) -> None:
    """Start this stage in several processes and wait for them; all end with the first that fails."""
    logger.info("training in %d processes", count)
    make_folder(UNFINISHED)
    with TemporaryDirectory(dir=UNFINISHED, prefix="meeting-") as meeting:
        shared = {"OMP_NUM_THREADS": str(max(1, core_count() // count)), **LOOPBACK, **os.environ}
        shared |= {MEETING: str(Path(meeting).absolute())}
        shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        members = [
            subprocess.Popen(
                [sys.executable, "-m", module, *sys.argv[1:]],
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(count)
        ]
        try:
            stopped = _wait(members)
        finally:
            for member in members:
                member.kill()
                member.wait()
        codes = [member.returncode for member in members]
        failures = [_failure(Path(meeting), rank, code, stopped) for rank, code in enumerate(codes) if code]
    if failures:
        if min(codes) < 0:
            sys.stderr.write("\n")  # a killed process does not end the line of its progress
        raise PipelineError(min(failures)[1])


def _wait(members: "list[subprocess.Popen[bytes]]") -> list[int]:
    """Until all have ended, some are stopped, or one has failed and the others had time to say why.

    Returns:
        Ranks of the stopped ones.
    """
    stopped = failed = 0.0
    while failed < GRACE_SECONDS and any(member.poll() is None for member in members):
        time.sleep(POLL_SECONDS)
        failed += POLL_SECONDS * any(member.returncode for member in members)
        # Counted in looks, not by the clock: where all are stopped, as by Ctrl-Z, so is this one.
        ranks = [rank for rank, member in enumerate(members) if is_stopped(member.pid)]
        stopped = stopped + POLL_SECONDS if ranks else 0.0
        if stopped > STOPPED_SECONDS:
            return ranks
    return []


def _failure(meeting: Path, rank: int, code: int, stopped: list[int]) -> tuple[int, str]:
    """Distance from the cause, and in words, of what a process failed of."""
    if rank in stopped:
        return -1, (
            f"training process {rank} has been stopped for {STOPPED_SECONDS:.0f} s and the others wait "
            "for it; run again to go on from the last checkpoint"
        )
    told = meeting / f"{rank}.json"
    if told.is_file():
        distance, message = json.loads(told.read_text())
        return distance, message
    if code == -signal.SIGKILL:
        # Also how all are ended that were still waiting for another when it failed.
        return 2, f"training process {rank} was killed (SIGKILL), as when the memory is used up; run again"
    return 1, f"training process {rank} ended with exit code {code}"


def _run_member(main: Callable[[World], None], processes: World) -> None:
    """Run the stage in one of several processes; what it fails of is told by the one that started it."""
    die_with_parent()
    if not processes.is_main:
        logging.getLogger().setLevel(logging.WARNING)
    meeting = os.environ.get(MEETING)
    try:
        with explained_memory(), _joined(processes, Path(meeting, "store") if meeting else None):
            main(processes)
    except Exception as error:
        # What processes say when another one has gone is never why.
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            reason = str(error).partition("\n")[0]
            failure = (3, f"training process {processes.rank} lost the others: {reason}")
        elif isinstance(error, PipelineError | OSError):
            failure = (0, str(error))
        else:
            failure = (1, f"training process {processes.rank} failed:\n{traceback.format_exc()}")
        if meeting is None:
            raise PipelineError(failure[1]) from error
        Path(meeting, f"{processes.rank}.json").write_text(json.dumps(failure))
        sys.exit(1)


@contextmanager
def _joined(processes: World, meeting: Path | None) -> Iterator[None]:
    """Meet the other processes: in a file, or where torchrun says."""
    if processes.count == 1:
        yield
        return
    own = machine(processes).device
    cuda = own.type == "cuda"
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=FileStore(str(meeting), processes.count) if meeting else None,
        rank=processes.rank,
        world_size=processes.count,
        timeout=TIMEOUT,
        device_id=own if cuda else None,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
