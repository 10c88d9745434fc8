"""A GPU, or a word that there is none; ``LDP_TEST_DEVICE=cpu`` tries these tests out without one."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("LDP_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU (LDP_TEST_DEVICE=cpu runs these tests on the CPU)")
    return torch.device(name)


@pytest.fixture(params=["exact", "float32", "bfloat16", "float16"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A precision; ``exact`` is float32 whose convolutions are not in TF32, PyTorch's default."""
    if request.param == "exact":
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return str(request.param)


@pytest.fixture
def precision(mode: str) -> str:
    """The mode as parameters have it."""
    return mode.replace("exact", "float32")


@pytest.fixture
def no_waits(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """A context in which a line that makes the host wait for the GPU is an error."""

    @contextmanager
    def refused() -> Iterator[None]:
        if device.type != "cuda":
            yield
            return
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")

    return refused
