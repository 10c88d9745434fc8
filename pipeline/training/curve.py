"""Curves of a training: the loss terms by step, and the watch over them; scores by epoch."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import PipelineError
from pipeline.core.files import write_csv
from pipeline.training.processes import Placement

LOG_EVERY_STEPS, MIN_ROWS = 20, 20

SCORES = ("AP", "AP50", "AP75")
"""What is recorded; the first decides which epoch is the best."""

Rows = dict[int, dict[str, float]]
"""A loss curve: terms by name, by the last step that they are the mean of."""

Scores = dict[str, float | None]
"""Percent, by name; ``None`` where there was nothing to be found."""


def log_interval(steps: int) -> int:
    """Steps that a row of the curve is the mean of: fewer where a run of ``steps`` would have few rows."""
    return max(1, min(LOG_EVERY_STEPS, steps // MIN_ROWS))


class Curve:
    """Means of the loss terms over a few steps and all processes.

    Values stay on the device until a row is complete: a look at every step would make a GPU wait for it.
    """

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

        Raises:
            PipelineError: names the first of them whose loss is not finite, and its terms.
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
        pending = [row.tolist() for row in self._pending]
        return {"step": self.step, "rows": self.rows, "pending": pending}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        self.step = state["step"]
        self.rows = {**state["rows"]}
        self._pending = list(torch.tensor(state["pending"], device=self._machine.device))


def write_curve(rows: Rows, path: Path) -> None:
    """Write the loss curve as CSV: one column a term, and their sum."""
    names = list(next(iter(rows.values()), {}))
    table = []
    for step, terms in rows.items():
        values = [terms[name] for name in names]
        table.append([step, *(f"{value:.6g}" for value in (*values, sum(values)))])
    write_csv(path, ["step", *names, "loss"], table)


def write_scores(scores: dict[int, Scores], path: Path) -> None:
    """Write the scores as CSV: a row for every epoch that was scored."""
    table = []
    for epoch, row in scores.items():
        values = (row[name] for name in SCORES)
        table.append([epoch, *("" if value is None else f"{value:.3f}" for value in values)])
    write_csv(path, ["epoch", *SCORES], table)
