"""The processes that share every batch, and the little that they say to one another."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from pipeline.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class World:
    """How many processes share a batch, and which of them this is.

    Every method is called by all of them at the same place; alone, it gives back what it was given.
    """

    rank: int
    count: int

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes and shows progress."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a batch.

        Raises:
            ConfigError: the batch cannot be shared equally.
        """
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

    def collect(self, items: list[T]) -> list[T]:
        """The lists of all processes, one after another."""
        if self.count == 1:
            return items
        lists: list[list[T]] = [[] for _ in range(self.count)]
        distributed.all_gather_object(lists, items)
        return [item for part in lists for item in part]


SINGLE_PROCESS = World(rank=0, count=1)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where training runs. Nothing here changes the result beyond the rounding of its sums."""

    device: torch.device
    workers: int
    """World that decode images for this one; 0 decodes here."""
    processes: World
    micro_batch: int | None
    """Images that pass through the network at once; ``None`` takes this process's whole share of a batch."""
