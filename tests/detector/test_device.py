"""Over which GPUs the store's workers are spread."""

import pytest
import torch

from pipeline.detector.device import worker_environments


@pytest.mark.parametrize(
    ("device", "gpus", "visible", "workers", "expected"),
    [
        ("cuda", 0, None, None, [{}]),
        ("cuda", 2, None, None, ["0", "1"]),
        ("cuda", 2, None, "3", ["0", "1", "0"]),
        ("cuda", 2, "2,5", None, ["2", "5"]),
        ("cuda:1", 4, None, None, [{}]),
        ("cuda:1", 4, None, "2", [{}, {}]),
        ("cpu", 4, None, None, [{}]),
        ("cpu", 4, None, "2", [{}, {}]),
    ],
)
def test_every_worker_sees_a_gpu_of_its_own_unless_one_device_was_named(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    gpus: int,
    visible: str | None,
    workers: str | None,
    expected: list[object],
) -> None:
    for name, value in (("LDP_CACHE_WORKERS", workers), ("CUDA_VISIBLE_DEVICES", visible)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    environments = [
        each.get("CUDA_VISIBLE_DEVICES", each) for each in worker_environments(torch.device(device))
    ]
    assert environments == expected
