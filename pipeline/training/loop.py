"""The training loop: the same for a teacher, a plain student and a distilled one."""

import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.detector.pretrained import load_imagenet
from pipeline.errors import PipelineError
from pipeline.output import replacing
from pipeline.progress import progress_bar
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import Loader
from pipeline.training.schedule import ScheduleConfig, build_optimizer, rate_factor

LOG_EVERY_STEPS = 20
"""Rows of the loss curve are means over this many steps."""

StepLosses = Callable[[Batch], dict[str, Tensor]]
"""Weighted loss terms (0-d) of one batch; their sum is what is minimised."""

logger = logging.getLogger(__name__)


def build_for_training(detector: DetectorConfig, config: TrainConfig, device: torch.device) -> GFL:
    """A detector before its first step: seeded, pretrained and frozen as asked for."""
    torch.manual_seed(config.seed)
    model = GFL(detector)
    if config.pretrained:
        load_imagenet(model.backbone, detector.backbone)
    freeze_stages(model.backbone, config.frozen_stages)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


@dataclass(frozen=True, kw_only=True)
class LossRow:
    """One row of the loss curve."""

    step: int
    terms: dict[str, float]


def train(
    model: GFL,
    losses_of: StepLosses,
    loader: Loader,
    schedule: ScheduleConfig,
    *,
    device: torch.device,
    norm_eval: bool,
    label: str,
    steps: int | None = None,
    log_every: int = LOG_EVERY_STEPS,
) -> list[LossRow]:
    """Train ``model`` in place and return the curve of its loss terms.

    ``steps`` stops before the schedule's end; the learning rate is that of the whole schedule all the same.

    Raises:
        PipelineError: the loss is not finite; the message names step and terms.
    """
    optimizer = build_optimizer(model, schedule)
    per_epoch = len(loader)
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, per_epoch, schedule))
    curve = _Curve(log_every)
    total = schedule.epochs * per_epoch if steps is None else min(steps, schedule.epochs * per_epoch)
    with progress_bar(total, label, "step") as bar:
        for epoch in range(-(-total // per_epoch)):
            _set_training(model, norm_eval=norm_eval)
            for batch in islice(loader.epoch(epoch), total - curve.step):
                terms = losses_of(batch.to(device))
                loss = torch.stack(list(terms.values())).sum()
                _require_finite(loss, terms, curve.step)
                _update(model, optimizer, loss, schedule.max_grad_norm)
                factor.step()
                curve.add(terms)
                bar.update()
            bar.set_postfix({"epoch": str(epoch + 1), **curve.latest()})
    return curve.rows


def _set_training(model: GFL, *, norm_eval: bool) -> None:
    model.train()
    if norm_eval:
        set_norms_to_eval(model)


def _require_finite(loss: Tensor, terms: dict[str, Tensor], step: int) -> None:
    if not torch.isfinite(loss):
        shown = ", ".join(f"{name}={value.item():.4g}" for name, value in terms.items())
        raise PipelineError(
            f"step {step}: expected a finite loss, but got {shown}; try a lower learning_rate"
        )


def _update(model: GFL, optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float | None) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if max_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()


class _Curve:
    """Means of the loss terms over a few steps."""

    def __init__(self, every: int) -> None:
        self.rows: list[LossRow] = []
        self.step = 0
        self._every = every
        self._pending: list[dict[str, Tensor]] = []

    def add(self, terms: dict[str, Tensor]) -> None:
        """Record a step; values stay on the device until a row is complete."""
        self.step += 1
        self._pending.append({name: value.detach() for name, value in terms.items()})
        if len(self._pending) == self._every:
            names = self._pending[0]
            means = {name: torch.stack([row[name] for row in self._pending]).mean().item() for name in names}
            self.rows.append(LossRow(step=self.step, terms=means))
            self._pending.clear()

    def latest(self) -> dict[str, str]:
        """Sum of the newest row's terms, once there is a row."""
        return {"loss": f"{sum(self.rows[-1].terms.values()):.3f}"} if self.rows else {}


def write_curve(rows: list[LossRow], path: Path) -> None:
    """Write the loss curve as CSV: one column a term."""
    names = list(rows[0].terms) if rows else []
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *names, "loss"])
        for row in rows:
            values = [row.terms[name] for name in names]
            writer.writerow([row.step, *(f"{value:.6g}" for value in (*values, sum(values)))])
