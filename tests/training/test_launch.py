"""Where each of several training processes computes."""

import os

import pytest
import torch

from pipeline.core.errors import ConfigError
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS, World

SECOND = World(rank=1, count=2)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, and this the second process on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for name in ("LDP_DEVICE", "LDP_MICRO_BATCH", "LDP_WORKERS", "LOCAL_WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("gpus")
def test_every_process_has_a_gpu_of_its_own_that_is_set_before_anything_is_put_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert machine(SECOND).device == torch.device("cuda", 1)
    assert machine(SINGLE_PROCESS).device == torch.device("cuda")
    monkeypatch.setenv("LDP_DEVICE", "cuda:1")
    assert machine(SINGLE_PROCESS).device == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)] * 2
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    assert machine(SECOND).device == torch.device("cpu")


@pytest.mark.usefixtures("gpus")
def test_more_processes_than_gpus_are_refused_but_of_slurm_which_shows_each_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="expected a GPU for each training process, but got 1 for 2"):
        machine(SECOND)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert machine(SECOND).device == torch.device("cuda", 0)
    monkeypatch.setenv("LDP_DEVICE", "cuda:0")
    with pytest.raises(ConfigError, match="LDP_DEVICE: expected cuda or cpu for 2"):
        machine(SECOND)


@pytest.mark.usefixtures("gpus")
def test_parts_of_a_batch_and_decoding_processes_are_those_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two machines of two processes each, with eleven of their cores for this job."""
    assert machine(SINGLE_PROCESS).micro_batch is None
    monkeypatch.setenv("LDP_MICRO_BATCH", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(11)))
    here = machine(World(rank=1, count=4))
    assert (here.micro_batch, here.workers) == (4, 3)
