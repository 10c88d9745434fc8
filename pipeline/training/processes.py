"""The processes that share every batch, what they say to one another, and their BatchNorm."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pipeline.core.errors import ConfigError


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
        """This process's part of a batch; a ``ConfigError`` if it cannot be shared equally."""
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
        """The bytes of one process, whatever the others' are; of the main one, if none is named.

        Bytes, not objects: to unpickle what a socket brings is to run it.
        """
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
    local_processes: int = 1
    """Training processes on this machine, which share its memory."""


class _SharedMean(torch.autograd.Function):
    """Mean over the processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: World) -> Tensor:
        ctx.processes = processes
        return processes.mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.mean(gradient), None


class SharedBatchNorm(nn.BatchNorm2d):
    """BatchNorm whose statistics in training are those of all processes' images.

    ``nn.SyncBatchNorm`` does this on GPUs only; here every device computes the same. The processes have
    equally many images of equal size, so the mean of their means is the mean of all.
    """

    def __init__(self, replaced: nn.BatchNorm2d, processes: World) -> None:
        super().__init__(replaced.num_features, replaced.eps, replaced.momentum)
        self.weight, self.bias = replaced.weight, replaced.bias
        self.running_mean, self.running_var = replaced.running_mean, replaced.running_var
        self.num_batches_tracked = replaced.num_batches_tracked
        self._processes = processes

    def forward(self, x: Tensor) -> Tensor:
        """``Tensor[B, C, H, W]`` to the same."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = self._shared_mean(values)
        centered = values - mean[:, None, None]
        variance = self._shared_mean(centered.square())
        self._track(mean, variance, x.numel() // self.num_features * self._processes.count)
        factor = self.weight * (variance + self.eps).rsqrt()
        return (centered * factor[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _shared_mean(self, values: Tensor) -> Tensor:
        """``Tensor[C]``."""
        return _SharedMean.apply(values.mean(dim=(0, 2, 3)), self._processes)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics, with the unbiased variance of ``count`` values."""
        if self.momentum is None or self.running_mean is None or self.running_var is None:
            raise ValueError("expected a BatchNorm with running statistics and a momentum")
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def share_batch_norms(module: nn.Module, processes: World) -> None:
    """Replace every BatchNorm below ``module``; names and values of its state stay."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SharedBatchNorm(child, processes))
        else:
            share_batch_norms(child, processes)
