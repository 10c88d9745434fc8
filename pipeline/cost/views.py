"""What the annotations alone say: how many views there are, and how much of them a store holds."""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.core.errors import DatasetError
from pipeline.core.timing import timed_call
from pipeline.detector.config import DetectorConfig
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.table import ViewIndex
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.run import layout_store
from pipeline.teacher.view_index import Progress

SAMPLED_IMAGES = 500
"""Of all images, evenly spaced: the mean number of kept points is then known to some 4 %."""


@dataclass(frozen=True, kw_only=True)
class ViewStatistics:
    """Means over a sample of planned views, and how many views there are in all."""

    images: int
    views: int
    sampled_views: int
    points_per_view: float
    boxes_per_view: float
    pixels_per_view: float
    """Padding included."""
    store_bytes_per_view: float
    plan_seconds_per_view: float


def gather_statistics(
    plan: ViewSet,
    config: CacheConfig,
    detector: DetectorConfig,
    images: int,
    views_per_image: int,
    progress: Progress[ViewIndex],
) -> ViewStatistics:
    """Plan the views of a sample of images.

    Args:
        plan: Of a dataset, or of a sample of one.
        config: Of the store.
        detector: The teacher.
        images: How many images the dataset has; the sample stands for them.
        views_per_image: Of the recipe, of which ``plan`` may have fewer.
        progress: Is shown the planned views.

    Raises:
        DatasetError: There is no image to plan.
    """
    total = len(plan.manifest.images)
    if not total:
        raise DatasetError(f"{plan.manifest.root}: expected images with boxes, but there are none")
    rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLED_IMAGES)).astype(np.int64))
    manifest = replace(plan.manifest, images=plan.manifest.images.take(rows))
    layout, seconds = timed_call(
        layout_store,
        replace(plan, manifest=manifest),
        config,
        num_classes=detector.num_classes,
        bins=detector.bins,
        fingerprint={},
        provenance={},
        processes=1,
        progress=progress,
    )
    sampled = len(layout.table)
    points, _, boxes = layout.table.counts.mean(axis=0)
    return ViewStatistics(
        images=images,
        views=images * views_per_image,
        sampled_views=sampled,
        points_per_view=float(points),
        boxes_per_view=float(boxes),
        pixels_per_view=float(layout.table.geometry[:, 4:6].astype(float).prod(axis=1).mean()),
        store_bytes_per_view=estimate_bytes(layout.schema, layout.table) / sampled,
        plan_seconds_per_view=seconds / sampled,
    )
