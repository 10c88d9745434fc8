"""What a killed training run goes on from: its whole state after its last saved step."""

import hashlib
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from pipeline.core.code import changed_code, loaded_code
from pipeline.core.environment import Environment
from pipeline.core.errors import CacheError, listed
from pipeline.core.files import digest, fsync_tree, lock_scratch, remove, write_atomically
from pipeline.training.processes import World

NAME_DIGITS = 16
DIGEST_BYTES = hashlib.sha256().digest_size

DAMAGE = (UnpicklingError, RuntimeError, EOFError, TypeError, ValueError, LookupError, AttributeError)
"""What reading a damaged checkpoint, or taking over another's state, ends in."""

State = dict[str, Any]
"""Plain values and tensors of a run after a step, by name."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The newest checkpoint of a run, in a folder of its own."""

    folder: Path
    seconds: float = 300
    """How often one is saved within an epoch; its end saves one in any case."""
    code: dict[str, str | None] = field(default_factory=loaded_code, repr=False)

    @property
    def path(self) -> Path:
        """The one file: the sha256 of what follows, and that."""
        return self.folder / "checkpoint.pt"

    def save(self, state: State) -> None:
        """Replace the last checkpoint; a kill leaves the one or the other."""
        buffer = io.BytesIO()
        torch.save({"code": self.code, "state": state}, buffer)
        content = buffer.getvalue()
        write_atomically(self.path, hashlib.sha256(content).digest() + content)

    def load(self, processes: World) -> State | None:
        """The newest checkpoint, if there is one; the main process reads it for all.

        Raises a ``CacheError`` if the file is damaged, or of code that has changed since.
        """
        saved = processes.is_main and self.path.is_file()
        content = processes.broadcast(self.path.read_bytes() if saved else b"missing")
        if content == b"missing":
            return None
        with self.explaining():
            if hashlib.sha256(content[DIGEST_BYTES:]).digest() != content[:DIGEST_BYTES]:
                raise ValueError("its bytes differ from their digest")
            document = torch.load(io.BytesIO(content[DIGEST_BYTES:]), map_location="cpu", weights_only=True)
            state: State = document["state"]
            changed = changed_code(document["code"], self.code)
        if changed and Environment.read().resume != "changed-code":
            raise CacheError(
                f"{self.path}: expected the code that runs now, but these have changed since: "
                f"{listed(changed)}; LDP_RESUME=changed-code goes on all the same, removing the file trains "
                "from the beginning"
            )
        if changed:
            logger.warning("%s: going on with code that has changed since: %s", self.path, listed(changed))
        return state

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Raise a ``CacheError`` that names the file for whatever a damaged or foreign one leads to."""
        try:
            yield
        except DAMAGE as error:
            reason = str(error).partition("\n")[0]
            raise CacheError(
                f"{self.path}: expected a checkpoint of this training run, but it is damaged or another's "
                f"({reason}); remove it to train from the beginning"
            ) from error


@contextmanager
def hold_checkpoints(folder: Path, results: Path, processes: World) -> Iterator[Checkpoints]:
    """Hold a folder for one run; it goes when the run has ended well, and its ``results`` are on the disk.

    Raises a ``CacheError`` if another run of the same training holds it, or one that writes the same results.
    """
    checkpoints = Checkpoints(folder=folder, seconds=Environment.read().checkpoint_seconds)
    if not processes.is_main:
        yield checkpoints
        return
    # One of other parameters would still write the same results, as one whose DVC was killed does.
    written = folder.with_name("-".join(results.parts).strip("/-"))
    with lock_scratch(written), lock_scratch(folder):
        yield checkpoints
        fsync_tree(results)
        remove(folder)
        remove(written)


def run_key(label: str, decides: Mapping[str, Any]) -> str:
    """Folder name of a run: its label, and a digest of the parameters and data that decide its result."""
    return f"{label}-{digest(decides)[:NAME_DIGITS]}"
