"""What a store is made from: everything that decides its bytes, and nothing else."""

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.cache.schema import FORMAT_VERSION
from pipeline.codec.precision import Precision
from pipeline.data.images import PREPROCESSING
from pipeline.detector.config import DetectorConfig
from pipeline.planning import ViewPlan
from pipeline.regions.atss import INSIDE_MARGIN_PX, TOP_K
from pipeline.regions.grid import ANCHOR_SCALE


def store_fingerprint(
    plan: ViewPlan, detector: DetectorConfig, weights_sha256: str, precision: Precision, batch_size: int
) -> dict[str, Any]:
    """The fingerprint of a store, as nested plain values."""
    return {
        "format_version": FORMAT_VERSION,
        "annotations": plan.manifest.annotations_sha256,
        "classes": [category.category_id for category in plan.manifest.categories],
        "images": plan.manifest.images_sha256,
        "geometry": {"strides": list(detector.strides), "bins": detector.bins},
        "preprocessing": PREPROCESSING,
        "precision": precision.to_json(),
        "regions": {
            **asdict(plan.regions),
            "anchor_scale": ANCHOR_SCALE,
            "atss_top_k": TOP_K,
            "inside_margin_px": INSIDE_MARGIN_PX,
        },
        "teacher": {"architecture": detector.to_json(), "weights": weights_sha256, "batch_size": batch_size},
        "views": plan.views.to_json(),
    }


def file_sha256(path: Path) -> str:
    """sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
