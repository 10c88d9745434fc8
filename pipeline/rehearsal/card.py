"""The outcome of a rehearsal: a row for each stage that has run, and what must be known about them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.rehearsal.left import Figures, describe


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a stage's process took of the machine."""

    exit_code: int
    """Less than 0 for the signal that ended it."""
    seconds: float
    cpu_seconds: float
    """Of all its processes."""
    peak_bytes: int | None
    """Main memory of the largest of its processes; ``None`` where that is not known."""

    @property
    def succeeded(self) -> bool:
        """Whether the stage ended well."""
        return self.exit_code == 0


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """One stage."""

    stage: str
    """With its student, as in ``train_student plain``."""
    spent: Spent
    left: Figures


@dataclass(frozen=True, kw_only=True)
class RehearsalCard:
    """All stages that have run; the last of them may have failed."""

    recipe: str
    device: str
    notes: tuple[str, ...]
    """What differs from the recipe and decides what the figures mean."""
    changes: dict[str, tuple[Any, Any]]
    """Values of the recipe and of the rehearsal, by dotted key."""
    stages: tuple[StageRow, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def render_card(card: RehearsalCard) -> str:
    """The card as Markdown."""
    lines = [f"{card.recipe} on {card.device}", ""]
    lines += ["| stage | seconds | CPU seconds | peak MB | left |", "|---|---|---|---|---|"]
    lines += [_row(row) for row in card.stages]
    lines += ["", *card.notes] if card.notes else []
    return "\n".join(lines) + "\n"


def _row(row: StageRow) -> str:
    spent = row.spent
    peak = "-" if spent.peak_bytes is None else f"{spent.peak_bytes / 1e6:,.0f}"
    left = describe(row.left) if spent.succeeded else "failed"
    cells = (f"{spent.seconds:.1f}", f"{spent.cpu_seconds:.1f}", peak, left)
    return f"| {row.stage} | {' | '.join(cells)} |"


def render_changes(changes: Sequence[tuple[str, Any, Any]]) -> str:
    """Keys with the recipe's value and that of the rehearsal, a line each."""
    return "\n".join(f"  {key}: {before} -> {after}" for key, before, after in changes)
