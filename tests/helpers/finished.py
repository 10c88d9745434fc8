"""The tiny project with everything in it that the stages make, run in this process: for what may spoil it."""

import importlib
import logging
import os
import re
import resource
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from project import write_params, write_tiny_dataset
from store_cases import Content

from pipeline.cli.main import main as ldp
from pipeline.core import code
from pipeline.core.paths import RunPaths
from pipeline.core.stage import run_stage
from pipeline.store.writer import writer
from pipeline.training.launch import run_training
from recipes import NAME, tiny_params

FOLDER = RunPaths(Path("runs") / NAME)
code.code_digest = cache(code.code_digest)
"""A process that runs many stages reads the same modules again and again: half a second each time."""

STUDENTS = ("plain", "ld")
STAGES = (
    "check_recipe",
    "prepare_data",
    "prepare_teacher",
    "evaluate teacher",
    "cache_teacher",
    "verify_cache",
    *(f"{stage} {name}" for name in STUDENTS for stage in ("train_student", "evaluate")),
    "report",
)
"""All stages with their arguments, in an order in which they can run."""

TRAINING = ("prepare_teacher", "train_student")
"""Those that may run in several processes."""

UNFINISHED = 3
"""The partition of the store in ``scratch/`` that is not finished: it has the last images."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its exit code, and what it says last on standard error, if it failed."""

    code: int
    error: str


def call(command: str) -> Ended:
    """Run ``STAGE ...`` or ``ldp ...`` in this process and in the current folder, as the shell would."""
    name, *arguments = shlex.split(command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        try:
            if name == "ldp":
                ldp()
            else:
                module = f"stages.{name}"
                main = importlib.import_module(module).main
                if name in TRAINING:
                    run_training(main, module)
                else:
                    run_stage(main)
        except SystemExit as ended:
            if isinstance(ended.code, str):
                return Ended(code=1, error=ended.code)
            return Ended(code=int(ended.code or 0), error="")
    return Ended(code=0, error="")


def without_times(files: Content) -> Content:
    """All files but those that say how long something took, and the page that shows it."""
    timed = re.compile(r"timing\.json$|\.html$|metrics/training/")
    return {name: content for name, content in files.items() if not timed.search(name)}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may become larger: a full disk, as far as one process can have it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Be in a folder, with the environment of a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("LDP_")]:
            patch.delenv(name)
        patch.setenv("LDP_DEVICE", "cpu")
        patch.setenv("LDP_WORKERS", "0")
        level = logging.getLogger().level
        yield
        logging.getLogger().setLevel(level)


def finish(folder: Path) -> None:
    """Run every stage; then put back the unfinished store that the teacher's run had in ``scratch/``."""
    write_tiny_dataset(folder)
    write_params(folder, tiny_params())
    with working_in(folder):
        for stage in STAGES:
            if stage == "cache_teacher":
                _leave_unfinished()
                shutil.copytree("scratch", "kept")
            ended = call(stage)
            assert ended.code == 0, f"{stage}: {ended.error}"
        shutil.rmtree("scratch")
        Path("kept").rename("scratch")


def _leave_unfinished() -> None:
    """Stop the teacher's run when all but one of its partitions are finished."""

    def interrupt(scratch: Path, _output: Path) -> None:
        writer.record_path(scratch, UNFINISHED).unlink()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "finalise", interrupt)
        assert call("cache_teacher").code == 130
