"""A training stage in one process, or in several that share every batch.

The number of processes changes no parameter and no command: ``LDP_TRAIN_PROCESSES`` (``core.environment``).
``torchrun --nproc-per-node 4 -m stages.train_student NAME`` does the same by hand.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
    get_error_handler,
)
from torch.distributed.run import parse_args, run

from pipeline.core.environment import Environment, workers
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.paths import SCRATCH
from pipeline.core.stage import run_stage
from pipeline.detector.device import device
from pipeline.training.processes import SINGLE_PROCESS, Placement, World

UNFINISHED = SCRATCH / "training"
"""A folder for each unfinished run."""

TIMEOUT = timedelta(hours=2)
"""How long processes wait for one another: the leading one may be evaluating or writing."""

LOST_CONTACT = ("RuntimeError", "DistBackendError", "DistNetworkError")
"""What processes say when another one has gone: never why."""

PR_SET_PDEATHSIG = 1
"""Of ``prctl`` (Linux): a signal for this process when its parent dies, however it dies."""

INTERRUPTED = 130

logger = logging.getLogger(__name__)


def run_training(main: Callable[[World], None], module: str) -> None:
    """Run a training stage: ``main`` in each of its processes.

    Args:
        main: the stage, given the processes that share its batches.
        module: its name, for starting it again in every process.
    """
    if "LOCAL_RANK" in os.environ:
        _run_member(main)
    else:
        run_stage(lambda: _run_here_or_in_members(main, module))


def _run_here_or_in_members(main: Callable[[World], None], module: str) -> None:
    count = Environment.read().train_processes
    if count == 1:
        main(SINGLE_PROCESS)
    else:
        _start_members(module, count)


def machine(processes: World) -> Placement:
    """Where this process trains."""
    return Placement(
        device=_own_device(processes),
        workers=workers(processes.count),
        processes=processes,
        micro_batch=Environment.read().micro_batch,
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
    own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if own >= there:
        raise ConfigError(
            f"expected a GPU for each training process, but got {there} for {processes.count}; take fewer "
            "processes, or LDP_DEVICE=cpu"
        )
    return torch.device("cuda", own)


def _start_members(module: str, count: int) -> None:
    """Start this stage in several processes and wait for them; all end with the first that fails.

    Raises:
        PipelineError: what the first one failed of.
    """
    logger.info("training in %d processes", count)
    # torchrun would choose one thread a process and say so; this is a fair share.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    command = ["--standalone", "--nproc-per-node", str(count), "-m", module, *sys.argv[1:]]
    try:
        with _quiet():
            run(parse_args(command))
    except ChildFailedError as error:
        raise PipelineError(_first_failure(error)) from error
    except SignalException:
        sys.exit(INTERRUPTED)


@contextmanager
def _quiet() -> Iterator[None]:
    """torchrun's own account of a failure says the same in more lines."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _first_failure(error: ChildFailedError) -> str:
    """One line of what went wrong first; the traceback, where it is not a user's to mend."""
    rank, failure = min(error.failures.items(), key=lambda item: (_kind(item[1]) in LOST_CONTACT, item[0]))
    if not isinstance(failure.message, dict):
        return f"training process {rank} failed: {failure.message}"
    if _kind(failure) in _user_errors():
        return str(failure.message["message"]).partition(": ")[2]
    return f"training process {rank} failed:\n{failure.message['extraInfo']['py_callstack']}"


def _kind(failure: ProcessFailure) -> str:
    """Name of the exception, as ``ErrorHandler.record_exception`` writes it; empty for a signal."""
    message: object = failure.message
    return str(message["message"]).partition(":")[0] if isinstance(message, dict) else ""


def _user_errors() -> set[str]:
    """Names of the errors that are shown as one line."""
    kinds = (PipelineError, OSError)
    return {kind.__name__ for base in kinds for kind in (base, *base.__subclasses__())}


def _run_member(main: Callable[[World], None]) -> None:
    """Run the stage in one of several processes; what it fails of is told by the process that started it."""
    _die_with_parent()
    leads = os.environ["RANK"] == "0"
    level = Environment.read().log if leads else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    try:
        with _joined() as processes:
            main(processes)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Also what nobody expects: else each of the others, which lost this one, would print a traceback.
        get_error_handler().record_exception(error)
        logger.debug("where it happened:", exc_info=True)
        sys.exit(1)


@contextmanager
def _joined() -> Iterator[World]:
    """Meet the other processes."""
    processes = World(rank=int(os.environ["RANK"]), count=int(os.environ["WORLD_SIZE"]))
    if processes.count == 1:
        yield processes
        return
    own = _own_device(processes)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    yield processes
    distributed.destroy_process_group()


def _die_with_parent() -> None:
    """Else killing the process that started this one would leave it training, and holding its folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
