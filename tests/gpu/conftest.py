"""A GPU, or a word that there is none; ``LDP_TEST_DEVICE=cpu`` tries these tests out without one."""

import os
import traceback
import warnings
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


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """Convolutions in float32 instead of TF32, which is PyTorch's default."""
    with warnings.catch_warnings():
        # Newer versions have another name for it; the older one works in all.
        warnings.simplefilter("ignore")
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        yield
        torch.backends.cudnn.allow_tf32 = before


Waits = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
def waits(device: torch.device) -> Waits:
    """A context that lists where the host waits for the GPU: ``file:line`` for each time."""

    @contextmanager
    def recorded() -> Iterator[list[str]]:
        lines: list[str] = []
        if device.type != "cuda":
            yield lines
            return

        def note(message: Warning | str, *_: object) -> None:
            if "synchronizing CUDA operation" in str(message):
                lines.append(innermost_line_of_the_project())

        torch.cuda.synchronize()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield lines
            finally:
                torch.cuda.set_sync_debug_mode("default")

    return recorded


def innermost_line_of_the_project() -> str:
    for frame in reversed(traceback.extract_stack()):
        if f"{os.sep}pipeline{os.sep}" in frame.filename:
            return f"{frame.filename.rpartition(f'{os.sep}pipeline{os.sep}')[2]}:{frame.lineno}"
    return "outside"
