"""What every stage shares: errors as one line, logging, and the machine's own settings.

Nothing here changes a byte of any output, so it comes from the environment, never from ``params.yaml``:

``LDP_DEVICE``   a torch device; the first GPU if there is one, else the CPU
``LDP_WORKERS``  processes that decode images for training; 0 decodes in the training process
``LDP_LOG``      log level (INFO)
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ConfigError, PipelineError


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage: an error that a user can cause is one line and exit code 1."""
    try:
        logging.basicConfig(level=log_level(), format="%(message)s", stream=sys.stderr)
        main()
    except (PipelineError, OSError) as error:
        # A full disk or a missing permission names its file; LDP_LOG=DEBUG shows where it happened.
        logging.getLogger(__name__).debug("where it happened:", exc_info=True)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def log_level() -> str:
    """How much is logged."""
    name = os.environ.get("LDP_LOG", "INFO").upper()
    if name not in logging.getLevelNamesMapping():
        raise ConfigError(f"LDP_LOG: expected a log level such as INFO or DEBUG, but got {name!r}")
    return name


def device() -> torch.device:
    """The device to compute on."""
    name = os.environ.get("LDP_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got {name!r}"
        ) from error


def workers() -> int:
    """Decoding processes for training."""
    value = os.environ.get("LDP_WORKERS", str(max(0, min(8, (os.cpu_count() or 1) - 2))))
    if not value.isdecimal():
        raise ConfigError(f"LDP_WORKERS: expected a number of processes, but got {value!r}")
    return int(value)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write metrics or a description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def timed(path: Path, **facts: object) -> Iterator[None]:
    """Write how long a block took; times have a file of their own, so that no later stage depends on them."""
    start = time.perf_counter()
    yield
    write_json(path, {"seconds": round(time.perf_counter() - start, 2), "device": str(device()), **facts})
