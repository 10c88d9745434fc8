"""What a training records and shows while it runs: loss terms by step, scores by epoch."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.files import write_csv
from pipeline.core.progress import describe_bytes, progress_bar
from pipeline.training.config import TrainConfig
from pipeline.training.processes import Placement

LOG_EVERY_STEPS, MIN_ROWS = 20, 20

SCORES = ("AP", "AP50", "AP75")
"""What is recorded; the first decides which epoch is the best."""

Rows = dict[int, dict[str, float]]
"""A loss curve: terms by name, by the last step that they are the mean of."""

Scores = dict[str, float | None]
"""Percent, by name; ``None`` where there was nothing to be found."""

logger = logging.getLogger(__name__)


def log_interval(steps: int) -> int:
    """Steps that a row of the curve is the mean of: fewer where a run of ``steps`` would have few rows."""
    return max(1, min(LOG_EVERY_STEPS, steps // MIN_ROWS))


class Curve:
    """Means of the loss terms over a few steps and all processes; a GPU is waited for once a row."""

    def __init__(self, every: int, machine: Placement) -> None:
        self.rows: Rows = {}
        self.step = 0
        self._every, self._machine = every, machine
        self._names: list[str] = []
        self._pending: list[Tensor] = []

    @property
    def ends_row(self) -> bool:
        """Whether the newest step has completed a row."""
        return not self._pending

    def add(self, terms: dict[str, Tensor]) -> None:
        """Record a step's terms, each that of this process's share; complete a row by :meth:`flush`."""
        self.step += 1
        self._names = list(terms)
        self._pending.append(torch.stack(list(terms.values())).detach())
        if len(self._pending) == self._every:
            self.flush()
            means = [column.mean().item() for column in torch.stack(self._pending, dim=1)]
            self.rows[self.step] = dict(zip(self._names, means, strict=True))
            self._pending.clear()

    def flush(self) -> None:
        """Average the pending steps over the processes.

        Raises a ``PipelineError`` with the first of them whose loss is not finite, and its terms.
        """
        if not self._pending:
            return
        values = self._machine.processes.mean(torch.stack(self._pending))
        self._pending = list(values)
        for step, row in enumerate(values.tolist(), start=self.step - len(values)):
            if not math.isfinite(sum(row)):
                shown = ", ".join(f"{name}={v:.4g}" for name, v in zip(self._names, row, strict=True))
                raise PipelineError(
                    f"step {step}: expected a finite loss, but got {shown}; try a lower learning_rate"
                )

    def state(self) -> dict[str, Any]:
        """Plain values, once flushed."""
        return {"step": self.step, "rows": self.rows, "pending": [row.tolist() for row in self._pending]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.step = state["step"]
        self.rows = {**state["rows"]}
        self._pending = list(torch.tensor(state["pending"], device=self._machine.device))


def write_curve(rows: Rows, path: Path) -> None:
    """Write the loss curve as CSV: one column a term, and their sum."""
    names = list(next(iter(rows.values()), {}))
    table = [
        [step, *(f"{value:.6g}" for value in (*terms.values(), sum(terms.values())))]
        for step, terms in rows.items()
    ]
    write_csv(path, ["step", *names, "loss"], table)


def write_scores(scores: dict[int, Scores], path: Path) -> None:
    """Write the scores as CSV: a row for every epoch that was scored."""
    table = []
    for epoch, row in scores.items():
        values = (row[name] for name in SCORES)
        table.append([epoch, *("" if value is None else f"{value:.3f}" for value in values)])
    write_csv(path, ["epoch", *SCORES], table)


@contextmanager
def watch(label: str, curve: Curve, total: int, config: TrainConfig, machine: Placement) -> Iterator["Watch"]:
    """Show how a training goes, in its main process; a ``ConfigError`` if ``LDP_LIVE`` lacks DVCLive."""
    is_main = machine.processes.is_main
    bar = progress_bar(total, label, "step", initial=curve.step, hidden=not is_main)
    live = _open_live(label, resume=curve.step > 0) if is_main else nullcontext()
    with live as record, bar, logging_redirect_tqdm():
        yield Watch(bar, record, curve, config, machine, (curve.step, time.monotonic()))


def _open_live(label: str, *, resume: bool) -> AbstractContextManager[Any]:
    """DVCLive's record below ``LDP_LIVE``, which belongs to no output; None if it is not wanted."""
    folder = Environment.read().live
    if folder is None:
        return nullcontext()
    try:
        dvclive = import_module("dvclive")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "LDP_LIVE needs the package dvclive: install it with `uv sync --extra live` or "
            "`pip install -e '.[live]'`"
        ) from error
    logging.getLogger("dvclive").setLevel(logging.ERROR)
    options = {"save_dvc_exp": False, "dvcyaml": None, "report": None, "resume": resume}
    live: AbstractContextManager[Any] = dvclive.Live(str(Path(folder, label)), **options)
    return live


@dataclass
class Watch:
    """Shows and records what a training gives it."""

    bar: "tqdm[Any]"
    live: Any
    """A ``dvclive.Live``, or None."""
    curve: Curve
    config: TrainConfig
    machine: Placement
    shown: tuple[int, float]
    """Step and time of the last values."""

    def step(self, epoch: int, rate: float) -> None:
        """A step of an epoch is finished; it had this learning rate."""
        if self.curve.ends_row and self.machine.processes.is_main:
            (before, then), self.shown = self.shown, (self.curve.step, time.monotonic())
            speed = self.config.batch_size * (self.curve.step - before) / (self.shown[1] - then)
            terms = self.curve.rows[self.curve.step]
            terms = {"loss": sum(terms.values()), **terms}
            self._record({**terms, "learning_rate": rate, "images_per_second": speed})
            values = {"epoch": epoch, **terms, "rate": rate, "images/s": speed}
            words = {name: f"{value:.3g}" for name, value in values.items()}
            if self.machine.device.type == "cuda":
                words["memory"] = describe_bytes(torch.cuda.max_memory_allocated(self.machine.device))
            self.bar.set_postfix(words, refresh=False)
        self.bar.update()

    def scores(self, epoch: int, scores: Scores) -> None:
        """An epoch was validated."""
        words = [f"{name} {value:.1f}" for name, value in scores.items() if value is not None]
        logger.info("%s: epoch %d: %s", self.bar.desc, epoch, ", ".join(words) or "nothing to find")
        self._record(scores)

    def _record(self, values: Mapping[str, float | None]) -> None:
        if self.live is None:
            return
        self.live.step = self.curve.step
        for name, value in values.items():
            if value is not None:
                self.live.log_metric(name, value)
        self.live.make_summary()
