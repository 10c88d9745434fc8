"""Which device is computed on, and which GPUs the store's workers are spread over."""

from collections.abc import Callable

import pytest
import torch

from pipeline.detector.device import cache_workers, worker_environments

CPU, CUDA, SECOND_GPU = (torch.device(name) for name in ("cpu", "cuda", "cuda:1"))
Gpus = Callable[[int], None]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LDP_CACHE_WORKERS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """A machine with so many GPUs."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_one_process_writes_the_store_unless_there_are_several_gpus(gpus: Gpus) -> None:
    for count, workers in ((0, 1), (1, 1), (4, 4)):
        gpus(count)
        assert cache_workers(CUDA) == workers
        assert cache_workers(CPU) == 1
        assert cache_workers(SECOND_GPU) == 1, "one was asked for"


def test_every_worker_sees_a_gpu_of_its_own(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    assert worker_environments(CUDA, 3) == [{"CUDA_VISIBLE_DEVICES": number} for number in "010"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert worker_environments(CUDA, 2) == [{"CUDA_VISIBLE_DEVICES": number} for number in "25"]
    assert worker_environments(SECOND_GPU, 2) == [{}, {}]
    assert worker_environments(CPU, 2) == [{}, {}]
