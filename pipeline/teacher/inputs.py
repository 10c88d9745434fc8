"""What a store is made from, without loading the teacher: writing and repairing one start here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.errors import ConfigError, TeacherError
from pipeline.core.files import sha256_of_file
from pipeline.detector.model import ModelSpec
from pipeline.onnx.model import TorchModel
from pipeline.onnx.models import GflHandle, ModelHandle, open_model
from pipeline.regions.points import INSIDE_MARGIN_PX, TOP_K
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.schema import FORMAT_VERSION
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.views.manifest import Manifest
from pipeline.views.pyramid import ANCHOR_SCALE


@dataclass(frozen=True)
class StoreInputs:
    """A teacher's files, and the views that it is to see."""

    config: CacheConfig
    view_set: ViewSet
    files: ModelHandle
    """The weights themselves are not read until the teacher is loaded."""
    weights_sha256: str

    @property
    def spec(self) -> ModelSpec:
        return self.files.spec

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides the store's bytes, and nothing else, as nested plain values."""
        config, view_set, spec = self.config, self.view_set, self.spec
        teacher: dict[str, Any] = {"architecture": self.files.architecture, "weights": self.weights_sha256}
        teacher["batch_size"] = config.batch_size
        # What came later is named only where it is used: older stores stay good.
        if config.forward_precision != "float32":
            teacher["forward_precision"] = config.forward_precision
        # Where that decides who is in a batch: views of one size are in the order of keys.
        originals = np.unique(view_set.manifest.images.size_hw, axis=0).tolist()
        sizes = view_set.views.padded_sizes(originals, view_set.conventions.preprocessing.fit)
        if config.batch_size > 1 and len(sizes) > 1:
            teacher["batches"] = "by padded size"
        return {
            "format_version": FORMAT_VERSION,
            **view_set.manifest.identity(),
            "geometry": {"strides": list(spec.strides), "bins": spec.bins, **spec.conventions.geometry()},
            "preprocessing": spec.conventions.preprocessing.to_json(),
            "precision": config.precision.to_json(),
            "regions": {
                **view_set.regions.to_json(),
                "anchor_scale": ANCHOR_SCALE,
                "atss_top_k": TOP_K,
                "inside_margin_px": INSIDE_MARGIN_PX,
            },
            "teacher": teacher,
            "views": view_set.views.to_json(),
            **({"dense": config.dense.to_json()} if config.dense else {}),
            **({"valuable_classes": True} if config.valuable_classes else {}),
        }

    def load_teacher(self, device: torch.device) -> LogitExtractor:
        """The teacher, ready to run; a ``TeacherError`` if its weights do not fit their description."""
        return LogitExtractor(self.files.load(), self.view_set.manifest, self.config, device)


def load_inputs(config: CacheConfig, manifest: Manifest, weights: Path) -> StoreInputs:
    """Put together what a store is made from; the teacher's description lies beside its weights.

    A ``TeacherError`` if there is none, or one of other classes than the dataset's; a ``ConfigError`` if it
    takes no views of this size, or computes in its own precision.
    """
    files = open_model(weights, manifest.categories)
    if config.forward_precision != "float32" and not isinstance(files, GflHandle | TorchModel):
        raise ConfigError(
            "cache_teacher.forward_precision: expected float32, for an ONNX file itself decides in "
            f"what it computes, but got {config.forward_precision}"
        )
    if not files.weights.is_file():
        raise TeacherError(f"{files.weights}: expected a weights file, but there is none")
    spec = files.spec
    spec.require_scales(config.views.scales, "cache_teacher.views.scales")
    view_set = ViewSet(manifest, spec.strides, config.views, config.regions, spec.conventions)
    return StoreInputs(config, view_set, files, sha256_of_file(files.weights))
