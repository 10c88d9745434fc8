"""Stages that begin in a tenth of a second: forked from a process that has imported them already.

What runs is the stage's own `main` in a process group of its own, in the folder and with the environment that
are asked for; only Python's start and the import of torch (10 s and more) are spared.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from workspace import STAGE, Run, environment, params_of, session_of, wait_for, write_params

from pipeline.core.stage import run_stage
from pipeline.training.launch import run_training

PREPARATION = ("stages.prepare_data", "stages.prepare_teacher")
TRAINING = ("stages.prepare_teacher",)
"""Those that may run in several processes."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*PREPARATION, STAGE])


def start_forked(folder: Path, log: Path, stage: str = STAGE, **changes: str) -> Run:
    """Start a stage in a folder."""
    log.touch()
    process = _context.Process(target=_run, args=(stage, folder, log, environment(**changes)))
    process.start()
    pid = process.pid
    assert pid is not None
    run = Run(pid=pid, poll=lambda: process.exitcode, log=log)
    wait_for(run, lambda: session_of(pid) == pid)
    return run


def _run(stage: str, folder: Path, log: Path, variables: Mapping[str, str]) -> None:
    """In the forked process: become what `python -m STAGE` would be."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv[:] = [stage]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    main = importlib.import_module(stage).main
    if stage in TRAINING:
        run_training(main, stage)
    else:
        run_stage(main)


def prepare(folder: Path, partitions: int) -> Path:
    """A workspace without git, DVC and code: parameters, a dataset, and a teacher."""
    workspace = folder / "workspace"
    workspace.mkdir()
    write_params(workspace, params_of(partitions))
    for stage in PREPARATION:
        run = start_forked(workspace, folder / f"{stage}.log", stage)
        if run.wait():
            raise RuntimeError(f"{stage} ended with {run.poll()}:\n{run.text()[-2000:]}")
    return workspace
