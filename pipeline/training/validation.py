"""Scores of a model while it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core.files import write_csv
from pipeline.detector.gfl import GFL

SCORES = ("AP", "AP50", "AP75")
"""What is recorded; the first decides which epoch is the best."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """Scores after an epoch, percent; ``None`` where there was nothing to be found."""

    epoch: int
    """Finished epochs."""
    scores: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """When a model is scored, by what, and which weights are kept."""

    score: Callable[[GFL], dict[str, float | None]]
    """Called by all processes; what the leading one gets is recorded."""
    every: int
    keep: Literal["last", "best"]

    def is_due(self, finished: int, epochs: int) -> bool:
        """After every so many epochs, and after the last."""
        return finished % self.every == 0 or finished == epochs


def is_best(rows: list[ScoreRow]) -> bool:
    """Whether the newest row is better than every earlier one."""
    *earlier, newest = [row.scores[SCORES[0]] or 0.0 for row in rows]
    return all(newest > score for score in earlier)


def write_scores(rows: list[ScoreRow], path: Path) -> None:
    """Write the scores as CSV: a row for every epoch that was scored."""
    table = []
    for row in rows:
        values = (row.scores[name] for name in SCORES)
        table.append([row.epoch, *("" if value is None else f"{value:.3f}" for value in values)])
    write_csv(path, ["epoch", *SCORES], table)
