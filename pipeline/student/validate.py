"""Average precision of a student while it is trained."""

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.core.errors import ConfigError
from pipeline.detector.gfl import GFL
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import detect
from pipeline.training.processes import Placement
from pipeline.training.validation import SCORES, Validation
from pipeline.views.manifest import Manifest

AREA_EDGES = (32.0, 96.0)
"""COCO's; no score of :data:`SCORES` depends on them."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """How a student is evaluated while it is trained."""

    split: Literal["train", "val"]
    """``val`` validates on that split; ``train`` reads no other images than training, and validates nothing.
    DVC's dependency of the training on its data, so it is the same for all students of a recipe."""
    every: int = 1
    """Epochs; the last one counts in any case."""
    keep: Literal["last", "best"] = "last"
    """Which weights the student ends with: those of the last epoch, or of the highest AP."""
    scale: tuple[int, int] | None = None
    """Test scale ``(long, short)``, px."""
    batch_size: int = 50

    @property
    def enabled(self) -> bool:
        """Epochs are validated."""
        return self.split == "val"

    def __post_init__(self) -> None:
        if self.enabled and self.scale is None:
            raise ConfigError("scale: expected (long, short) in px to validate at, but got null")
        for name in ("every", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, but got {getattr(self, name)}")


def validation_on(config: ValidationConfig, manifest: Manifest, machine: Placement) -> Validation:
    """Validation on the images of a manifest, which the processes share."""
    processes, scale = machine.processes, config.scale
    assert scale is not None, "a validation has a scale"
    mine = replace(manifest, images=manifest.images[processes.rank :: processes.count])

    def score(model: GFL) -> dict[str, float | None]:
        found = detect(
            model,
            mine,
            scale,
            batch_size=config.batch_size,
            device=machine.device,
            progress=lambda batches, _total: batches,
        )
        results = processes.collect(found)
        if not processes.is_main:
            return dict.fromkeys(SCORES)
        summary = evaluate(manifest, results, AREA_EDGES).summary
        return {name: summary[name] for name in SCORES}

    return Validation(score=score, every=config.every, keep=config.keep)
