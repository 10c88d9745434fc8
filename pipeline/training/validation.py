"""Scores of a model while it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core.files import write_csv
from pipeline.detector.gfl import GFL

SCORES = ("AP", "AP50", "AP75")
"""What is recorded; the first decides which epoch is the best."""

Scores = dict[str, float | None]
"""Percent, by name; ``None`` where there was nothing to be found."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When a model is scored, by what, and which weights are kept."""

    score: Callable[[GFL], Scores]
    """Called by all processes; what the leading one gets is recorded."""
    every: int
    keep: Literal["last", "best"]

    def is_due(self, finished: int, epochs: int) -> bool:
        """After every so many epochs, and after the last."""
        return finished % self.every == 0 or finished == epochs


def is_best(scores: dict[int, Scores]) -> bool:
    """Whether the newest epoch is better than every earlier one."""
    *earlier, newest = [of_epoch[SCORES[0]] or 0.0 for of_epoch in scores.values()]
    return all(newest > score for score in earlier)


def write_scores(scores: dict[int, Scores], path: Path) -> None:
    """Write the scores as CSV: a row for every epoch that was scored."""
    table = []
    for epoch, of_epoch in scores.items():
        values = (of_epoch[name] for name in SCORES)
        table.append([epoch, *("" if value is None else f"{value:.3f}" for value in values)])
    write_csv(path, ["epoch", *SCORES], table)
