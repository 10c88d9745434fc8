"""What a store is to be made from, without loading the teacher: whoever writes or repairs one starts here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.config import structure
from pipeline.data.manifest import Manifest
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import load_detector, read_description
from pipeline.errors import TeacherError
from pipeline.planning import ViewPlan
from pipeline.teacher.cache_views import CacheConfig
from pipeline.teacher.fingerprint import file_sha256, store_fingerprint
from pipeline.teacher.soft_targets import Teacher


@dataclass(frozen=True, kw_only=True)
class StoreSetup:
    """A teacher's file, its architecture, and the views that it is to see."""

    config: CacheConfig
    plan: ViewPlan
    weights: Path
    """The teacher's safetensors file; its description lies beside it."""
    detector: DetectorConfig
    """As described there: the weights themselves are not read until the teacher is loaded."""
    weights_sha256: str

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Of the store that this makes."""
        return store_fingerprint(
            self.plan, self.detector, self.weights_sha256, self.config.precision, self.config.batch_size
        )

    def load_teacher(self, device: torch.device) -> Teacher:
        """The teacher, ready to run.

        Raises:
            TeacherError: The weights are missing or do not fit their description.
        """
        return Teacher(
            model=load_detector(self.weights),
            manifest=self.plan.manifest,
            batch_size=self.config.batch_size,
            device=device,
        )


def set_up_store(config: CacheConfig, manifest: Manifest, weights: Path) -> StoreSetup:
    """Put together what a store is made from.

    Raises:
        TeacherError: There is no teacher, or it is one of another number of classes than the dataset's.
    """
    described = weights.with_suffix(".json")
    detector = structure(DetectorConfig, read_description(weights).get("architecture"), str(described))
    if detector.num_classes != len(manifest.categories):
        raise TeacherError(
            f"{weights}: expected a teacher of the dataset's {len(manifest.categories)} classes, "
            f"but it has {detector.num_classes}"
        )
    if not weights.is_file():
        raise TeacherError(f"{weights}: expected a weights file, but there is none")
    plan = ViewPlan(manifest=manifest, strides=detector.strides, views=config.views, regions=config.regions)
    return StoreSetup(
        config=config, plan=plan, weights=weights, detector=detector, weights_sha256=file_sha256(weights)
    )
