"""The processes that share every batch, what they say to one another, and their BatchNorm."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

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


class _SharedMean(torch.autograd.Function):
    """Mean over the processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: World) -> Tensor:
        ctx.processes = processes
        return processes.mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.mean(gradient), None


def share_batch_norms(module: nn.Module, processes: World) -> None:
    """Take the statistics of every BatchNorm below ``module`` in training from all processes' images.

    ``nn.SyncBatchNorm`` does this on GPUs only. All processes have equally many pixels, so the mean of their
    means is the mean of all.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.forward = partial(_normalize, norm, processes)  # type: ignore[method-assign]


def _normalize(norm: nn.BatchNorm2d, processes: World, x: Tensor) -> Tensor:
    """``Tensor[B, C, H, W]`` to the same; the running variance is the unbiased one."""
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)
    assert norm.momentum is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    values = x.float()
    mean: Tensor = _SharedMean.apply(values.mean(dim=(0, 2, 3)), processes)
    centered = values - mean[:, None, None]
    variance: Tensor = _SharedMean.apply(centered.square().mean(dim=(0, 2, 3)), processes)
    count = x.numel() // norm.num_features * processes.count
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.num_batches_tracked.add_(1)
    factor = norm.weight * (variance + norm.eps).rsqrt()
    return (centered * factor[:, None, None] + norm.bias[:, None, None]).to(x.dtype)
