"""A training stage in one process, or in several that share every batch.

``LDP_TRAIN_PROCESSES`` (``core.environment``) starts them, and changes no parameter and no command;
``torchrun --nproc-per-node 4 -m stages.train_student NAME`` does the same by hand, on several machines, too.
Processes that the stage starts meet in a file and talk over this machine's loopback alone.
"""

import logging
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
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

POLL_SECONDS, STOPPED_SECONDS = 0.2, 30.0
LOST_SECONDS = 5.0
"""How long a process that has lost the others waits to be ended with them, before it fails of that."""

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
    """As torchrun, or the stage that started this process, has set it; a scheduler of jobs may set a part."""
    rank, count, local = values = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    meets = count == "1" or MEETING in os.environ or {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if meets and all(value.isdecimal() for value in values) and int(rank) < int(count):
        return World(rank=int(rank), count=int(count))
    raise ConfigError(
        "expected RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT as torchrun sets them, but got "
        f"RANK={rank!r}, WORLD_SIZE={count!r}, LOCAL_RANK={local!r}; unset RANK to train in one process"
    )


def machine(processes: World) -> Placement:
    """Where this process trains: on the CPU as all do, or on one GPU, which its threads use from here on.

    Raises a ``ConfigError`` if there are fewer GPUs than processes, or one is given for several.
    """
    chosen, count = device(), processes.count
    if count > 1 and chosen.type == "cuda":
        if chosen.index is not None:
            raise ConfigError(f"LDP_DEVICE: expected cuda or cpu for {count} processes, but got {chosen}")
        local, visible = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if visible == 1 and os.environ.get("SLURM_NTASKS") == str(count):
            local = 0  # Slurm shows each of its tasks the one GPU that it has
        if local >= visible:
            raise ConfigError(
                f"expected a GPU for each training process, but got {visible} for {count}; take fewer "
                "processes, or LDP_DEVICE=cpu"
            )
        chosen = torch.device("cuda", local)
    if chosen.type == "cuda" and chosen.index is not None:  # else the current one, which is CUDA's first
        torch.cuda.set_device(chosen)
    return Placement(
        device=chosen,
        workers=workers(int(os.environ.get("LOCAL_WORLD_SIZE", count))),
        processes=processes,
        micro_batch=Environment.read().micro_batch,
    )


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
            _wait(members, Path(meeting))
        finally:
            for member in members:
                member.kill()
                member.wait()


def _wait(members: "list[subprocess.Popen[bytes]]", meeting: Path) -> None:
    """Until all have ended well; raises a ``PipelineError`` if one is stopped, or the first has failed."""
    stopped = 0.0
    while not any(member.poll() for member in members):
        if all(member.returncode == 0 for member in members):
            return
        time.sleep(POLL_SECONDS)
        # Counted in looks, not by the clock: where all are stopped, as by Ctrl-Z, so is this one.
        ranks = [rank for rank, member in enumerate(members) if is_stopped(member.pid)]
        stopped = stopped + POLL_SECONDS if ranks else 0.0
        if stopped > STOPPED_SECONDS:
            raise PipelineError(
                f"training process {ranks[0]} has been stopped for {STOPPED_SECONDS:.0f} s and the others "
                "wait for it; run again to go on from the last checkpoint"
            )
    rank, code = next((rank, member.returncode) for rank, member in enumerate(members) if member.returncode)
    message = meeting / str(rank)
    if message.is_file():
        raise PipelineError(message.read_text())
    if code == -signal.SIGKILL:
        sys.stderr.write("\n")  # a killed process does not end the line of its progress
        raise PipelineError(
            f"training process {rank} was killed (SIGKILL), as when the memory is used up; run again"
        )
    raise PipelineError(f"training process {rank} ended with exit code {code}")


def _run_member(main: Callable[[World], None], processes: World) -> None:
    """Run the stage in one of several processes; the one that started it reports what it fails of."""
    die_with_parent()
    if not processes.is_main:
        logging.getLogger().setLevel(logging.WARNING)
    meeting = os.environ.get(MEETING)
    try:
        with explained_memory():
            if processes.count > 1:
                _meet(processes, meeting)
            main(processes)
    except Exception as error:
        message = f"training process {processes.rank} failed:\n{traceback.format_exc()}"
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            time.sleep(LOST_SECONDS)  # another one is the cause, and is about to end
            reason = str(error).partition("\n")[0]
            message = f"training process {processes.rank} lost the others: {reason}"
        elif isinstance(error, PipelineError | OSError):
            message = str(error)
        if meeting is None:
            raise PipelineError(message) from error
        Path(meeting, str(processes.rank)).write_text(message)
        sys.exit(1)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _meet(processes: World, meeting: str | None) -> None:
    """Join the other processes: in a file, or where torchrun says."""
    here = machine(processes).device
    cuda = here.type == "cuda"
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=FileStore(f"{meeting}/store", processes.count) if meeting else None,
        rank=processes.rank,
        world_size=processes.count,
        timeout=TIMEOUT,
        device_id=here if cuda else None,
    )
