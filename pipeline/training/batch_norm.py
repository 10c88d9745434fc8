"""BatchNorm over a batch that several processes share."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.processes import World


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
