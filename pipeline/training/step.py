"""One step of training: forward, losses, backward, update; in one process or several, whole or in parts."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.core.errors import ConfigError
from pipeline.detector.device import autocast
from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.criterion import LossNormalizers, MainPoints, Terms, detection_terms, gather_main
from pipeline.training.dataset import StepBatches
from pipeline.training.processes import Placement, World

Distill = Callable[[RawOutputs, Batch, MainPoints, LossNormalizers], Terms]
"""The terms of a batch beside those of detection, divided by the normalizers given."""

SGD_MOMENTUM = 0.9
"""As in every published recipe."""


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the parameters that get gradients."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if device.type == "cuda":
        options["fused"] = True  # one kernel; on the CPU it would change last bits
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=SGD_MOMENTUM, **options)
    return torch.optim.AdamW(parameters, **options)


class TrainStep:
    """A model and its optimizer."""

    def __init__(self, model: GFL, distill: Distill | None, config: TrainConfig, machine: Placement) -> None:
        if machine.micro_batch and not config.norm_eval:
            raise ConfigError(
                "norm_eval: expected true, but got false: a batch in parts (LDP_MICRO_BATCH) would have "
                "other BatchNorm statistics than the whole"
            )
        self.optimizer = build_optimizer(model, config, machine.device)
        # Only float16 needs it: small gradients would be zero, so the loss is multiplied before the backward
        # pass. A step whose gradients overflow is left out, and the factor halved.
        self.scaler = torch.amp.GradScaler(machine.device.type, enabled=config.precision == "float16")
        self._model = model
        self._distill = distill
        self._config = config
        self._machine = machine
        if config.compile:
            model.compile()
        self._parallel = _in_parallel(model, config, machine)

    def step(self, batches: StepBatches, rate: float) -> Terms:
        """Take one step at a learning rate; returns the terms of this process's share of the batch."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        whole = self._normalizers(batches) if len(batches) > 1 else None
        *first, last = batches
        # Gradients of all but the last part stay here; with the last, their sum is averaged.
        parallel = self._parallel
        with parallel.no_sync() if isinstance(parallel, DistributedDataParallel) else nullcontext():
            parts = [self._backward(batch, whole) for batch in first]
        parts.append(self._backward(last, whole))
        if self._config.max_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.max_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: torch.stack([terms[name] for terms in parts]).sum() for name in parts[0]}

    @torch.no_grad()
    def _normalizers(self, batches: StepBatches) -> LossNormalizers:
        """The normalizers of all parts, before the first is trained on."""
        parts = []
        for batch in batches:
            main = gather_main(self._forward(self._model, batch), batch.targets)
            parts.append(LossNormalizers.from_batch(batch.targets, main))
        return LossNormalizers.summed(parts).averaged(self._machine.processes)

    def _backward(self, batch: Batch, whole: LossNormalizers | None) -> Terms:
        """Add a batch's gradients; its normalizers are its own where it is the ``whole``."""
        raw = self._forward(self._parallel, batch)
        main = gather_main(raw, batch.targets)
        if whole is None:
            whole = LossNormalizers.from_batch(batch.targets, main).averaged(self._machine.processes)
        terms = detection_terms(raw, batch.targets, main, whole)
        if self._distill:
            terms |= self._distill(raw, batch, main, whole)
        loss = torch.stack(list(terms.values())).sum()
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    def _forward(self, model: nn.Module, batch: Batch) -> RawOutputs:
        with autocast(self._config.precision, self._machine.device):
            raw: RawOutputs = model(batch.images(self._model.conventions.preprocessing))
        return raw


def _in_parallel(model: GFL, config: TrainConfig, machine: Placement) -> nn.Module:
    """The model itself, or wrapped so that its gradients are averaged over the processes."""
    if machine.processes.count == 1:
        return model
    if not config.norm_eval:
        _share_batch_norms(model, machine.processes)
    devices = [machine.device] if machine.device.type == "cuda" else None
    parallel = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    # Buffers are equal everywhere. As an argument it would have another name from torch 2.15 on.
    parallel.broadcast_buffers = False
    return parallel


class _SharedMean(torch.autograd.Function):
    """Mean over the processes, whose gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, processes: World) -> Tensor:
        ctx.processes = processes
        return processes.mean(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.processes.mean(gradient), None


def _share_batch_norms(module: nn.Module, processes: World) -> None:
    """Take every BatchNorm's statistics in training from all processes' images, of equally many pixels each.

    ``nn.SyncBatchNorm`` does this on GPUs only.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.forward = partial(_normalize, norm, processes)  # type: ignore[method-assign]


def _normalize(norm: nn.BatchNorm2d, processes: World, x: Tensor) -> Tensor:
    """``Tensor[B, C, H, W]`` to the same; the running variance is the unbiased one."""
    if not norm.training:
        return nn.BatchNorm2d.forward(norm, x)
    assert norm.momentum is not None
    values = x.float()
    mean: Tensor = _SharedMean.apply(values.mean(dim=(0, 2, 3)), processes)
    centered = values - mean[:, None, None]
    variance: Tensor = _SharedMean.apply(centered.square().mean(dim=(0, 2, 3)), processes)
    count = x.numel() // norm.num_features * processes.count
    with torch.no_grad():
        norm.get_buffer("running_mean").lerp_(mean, norm.momentum)
        norm.get_buffer("running_var").lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.get_buffer("num_batches_tracked").add_(1)
    factor = norm.weight * (variance + norm.eps).rsqrt()
    return (centered * factor[:, None, None] + norm.bias[:, None, None]).to(x.dtype)
