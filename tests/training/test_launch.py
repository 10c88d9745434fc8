"""Several training processes: what their number may be, where each computes, and which failure is told."""

import json
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from pipeline.core.errors import ConfigError
from pipeline.training.launch import _first_failure, machine
from pipeline.training.processes import SINGLE_PROCESS, World

SECOND = World(rank=1, count=2)


def failure(folder: Path, rank: int, message: str | None, second: int, exitcode: int = 1) -> ProcessFailure:
    """A process that failed; without a message it was killed."""
    file = folder / f"{rank}.json"
    if message is not None:
        extra = {"py_callstack": f"Traceback\n{message}", "timestamp": str(second)}
        file.write_text(json.dumps({"message": {"message": message, "extraInfo": extra}}))
    return ProcessFailure(local_rank=rank, pid=1, exitcode=exitcode, error_file=str(file))


def told(*failures: ProcessFailure) -> str:
    return _first_failure(ChildFailedError("stage", {one.local_rank: one for one in failures}))


def test_the_cause_is_told_and_not_what_the_others_made_of_it(tmp_path: Path) -> None:
    lost = failure(tmp_path, 0, "RuntimeError: Connection closed by peer", 5)
    cause = failure(tmp_path, 1, "DatasetError: a.jpg: expected an image, but there is none", 5)
    assert told(lost, cause) == "a.jpg: expected an image, but there is none"


def test_an_error_that_all_have_is_told_once(tmp_path: Path) -> None:
    same = [failure(tmp_path, rank, "ConfigError: batch_size: expected 4", 5) for rank in range(3)]
    assert told(*same) == "batch_size: expected 4"


def test_a_killed_process_is_told_with_its_signal(tmp_path: Path) -> None:
    lost = failure(tmp_path, 0, "RuntimeError: Connection closed by peer", 5)
    assert "training process 1 " in told(lost, failure(tmp_path, 1, None, 5, exitcode=-9))
    assert "SIGKILL" in told(lost, failure(tmp_path, 1, None, 5, exitcode=-9))


def test_an_error_that_nobody_expects_comes_with_its_traceback(tmp_path: Path) -> None:
    assert "Traceback" in told(failure(tmp_path, 2, "KeyError: 5", 5))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, and this the second process on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name in ("LDP_DEVICE", "LDP_MICRO_BATCH", "LDP_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("gpus")
def test_every_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(SECOND).device == torch.device("cuda", 1)
    assert machine(SINGLE_PROCESS).device == torch.device("cuda")
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    assert machine(SECOND).device == torch.device("cpu")


@pytest.mark.usefixtures("gpus")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="expected a GPU for each training process, but got 2 for 3"):
        machine(World(rank=2, count=3))
    monkeypatch.setenv("LDP_DEVICE", "cuda:0")
    with pytest.raises(ConfigError, match="LDP_DEVICE: expected cuda or cpu for 3"):
        machine(World(rank=2, count=3))


@pytest.mark.usefixtures("gpus")
def test_a_part_of_a_batch_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(SINGLE_PROCESS).micro_batch is None
    monkeypatch.setenv("LDP_MICRO_BATCH", "4")
    assert machine(SINGLE_PROCESS).micro_batch == 4
    monkeypatch.setenv("LDP_MICRO_BATCH", "0")
    with pytest.raises(ConfigError, match=r"LDP_MICRO_BATCH: expected an integer >= 1.*, but got '0'"):
        machine(SINGLE_PROCESS)
