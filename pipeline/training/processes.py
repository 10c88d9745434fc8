"""The processes that share every batch, and what they send one another."""

from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from pipeline.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class World:
    """How many processes share a batch, and which of them this is; all call its methods at the same place."""

    rank: int
    count: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and shows progress."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a batch; raises a ``ConfigError`` if it cannot be shared equally."""
        if batch_size % self.count:
            raise ConfigError(
                f"batch_size: expected a multiple of the {self.count} training processes, but got "
                f"{batch_size}; it is the size of the whole batch: take another number of processes"
            )
        part = batch_size // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, without gradient."""
        if self.count == 1:
            return values
        total = values.detach().clone()
        distributed.all_reduce(total)
        return total / self.count

    def broadcast(self, content: bytes, source: int = 0) -> bytes:
        """The bytes of one process; no objects, for to unpickle what a socket brings is to run it."""
        if self.count == 1:
            return content
        size = torch.tensor([len(content)])
        distributed.broadcast(size, source)
        sent = content if self.rank == source else bytes(int(size))
        # One more than there are, for torch makes no tensor of no bytes.
        buffer = torch.frombuffer(bytearray(sent + b"\0"), dtype=torch.uint8)
        distributed.broadcast(buffer, source)
        return buffer[:-1].numpy().tobytes()

    def gather(self, content: bytes) -> list[bytes]:
        """The bytes of every process, by rank."""
        return [self.broadcast(content, source) for source in range(self.count)]


SINGLE_PROCESS = World(rank=0, count=1)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where training runs. Nothing here changes the result beyond the rounding of its sums."""

    device: torch.device
    workers: int
    """Processes that decode images for this one; 0 decodes here."""
    processes: World
    micro_batch: int | None
    """Images that pass through the network at once; ``None`` takes this process's whole share of a batch."""
