"""What a store is made from: everything that decides its bytes, and nothing else."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.detector.model import ModelSpec
from pipeline.regions.atss import INSIDE_MARGIN_PX, TOP_K
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.schema import FORMAT_VERSION
from pipeline.teacher.config import CacheConfig
from pipeline.views.pyramid import ANCHOR_SCALE


def store_fingerprint(
    view_set: ViewSet,
    spec: ModelSpec,
    architecture: Mapping[str, Any],
    weights_sha256: str,
    config: CacheConfig,
) -> dict[str, Any]:
    """The fingerprint of a store, as nested plain values, of which ``architecture`` is made as well."""
    exact = config.forward_precision == "float32"
    # Named only where it is lower: stores from before it could be chosen are in float32, and stay good.
    lower = {} if exact else {"forward_precision": config.forward_precision}
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
        "teacher": {
            "architecture": dict(architecture),
            "weights": weights_sha256,
            "batch_size": config.batch_size,
            **lower,
            **_grouped(view_set, config.batch_size),
        },
        "views": view_set.views.to_json(),
        **({"dense": config.dense.to_json()} if config.dense else {}),
        **({"valuable_classes": True} if config.valuable_classes else {}),
    }


def _grouped(view_set: ViewSet, batch_size: int) -> dict[str, str]:
    """How batches are made, where that decides who is in one: views of one size are in the order of keys."""
    originals = np.unique(view_set.manifest.images.size_hw, axis=0).tolist()
    sizes = view_set.views.padded_sizes(originals, view_set.conventions.preprocessing.fit)
    return {"batches": "by padded size"} if batch_size > 1 and len(sizes) > 1 else {}
