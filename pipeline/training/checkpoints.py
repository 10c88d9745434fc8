"""What a killed training run goes on from: its whole state after the last finished epoch."""

import io
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from pipeline.core.digest import digest
from pipeline.core.errors import CacheError
from pipeline.core.files import lock_scratch, remove, sha256_of_file, write_atomically
from pipeline.training.processes import World

NAME_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State of a run after an epoch, plain values and tensors."""

    epoch: int
    """Finished epochs."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random: list[Tensor]
    """States of torch's generators: the CPU's and, on a GPU, the device's."""
    curve: dict[str, Any]
    scores: list[dict[str, Any]]
    best: dict[str, Tensor]
    """Weights of the best epoch, if they are kept."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The newest checkpoint of a run, in a folder of its own."""

    folder: Path

    @property
    def path(self) -> Path:
        """The one file."""
        return self.folder / "checkpoint.pt"

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the last checkpoint; a kill leaves the one or the other."""
        buffer = io.BytesIO()
        torch.save(vars(checkpoint), buffer)
        write_atomically(self.path, buffer.getvalue())

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, if there is one.

        Raises:
            CacheError: the file is damaged.
        """
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            return Checkpoint(**content)
        except FileNotFoundError:
            return None
        except (UnpicklingError, RuntimeError, EOFError, TypeError, ValueError) as error:
            raise CacheError(
                f"{self.path}: expected a checkpoint of this training run, but it cannot be read; "
                "remove it to train from the beginning"
            ) from error


@contextmanager
def hold_checkpoints(folder: Path, processes: World) -> Iterator[Checkpoints]:
    """Hold a folder for one run; it goes when the run has ended well.

    Raises:
        CacheError: another run of the same training holds it.
    """
    with lock_scratch(folder) if processes.is_main else nullcontext():
        yield Checkpoints(folder=folder)
        if processes.is_main:
            remove(folder)


def run_key(label: str, decides: Mapping[str, Any]) -> str:
    """Folder name of a run: its label, and a digest of all that decides its result, the code included."""
    return f"{label}-{digest({**decides, 'code': _code()})[:NAME_DIGITS]}"


def _code() -> dict[str, str]:
    """sha256 of every module of this project that is loaded: old code's half must not be continued by new."""
    modules = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("pipeline.")}
    return {name: sha256_of_file(Path(file)) for name, file in sorted(modules.items()) if file}


def random_states(device: torch.device) -> list[Tensor]:
    """States of the generators that training on a device may draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def restore_random(states: list[Tensor], device: torch.device) -> None:
    """Inverse of :func:`random_states`; a run may go on on another kind of device."""
    torch.set_rng_state(states[0])
    if device.type == "cuda" and len(states) > 1:
        torch.cuda.set_rng_state(states[1], device)
