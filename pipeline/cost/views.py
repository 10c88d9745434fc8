"""What the annotations alone say: how many views there are, and how much of them a store holds."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import DatasetError
from pipeline.core.timing import timed_call
from pipeline.detector.config import DetectorConfig
from pipeline.regions.view_set import ViewSet, one_thread
from pipeline.store.format.table import ViewIndex, plan_schema
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.plan_table import Progress
from pipeline.views.types import LabeledView, ViewKey

SAMPLED_IMAGES = 500
"""Of all images, evenly spaced: the mean number of kept points is then known to some 4 %."""
VIEWS_PER_IMAGE = 2


@dataclass(frozen=True, kw_only=True)
class ViewStatistics:
    """Means over a sample of planned views, and how many views there are in all."""

    images: int
    views: int
    sampled_views: int
    points_per_view: float
    main_points_per_view: float
    boxes_per_view: float
    pixels_per_view: float
    """Padding included."""
    store_bytes_per_view: float
    plan_seconds_per_view: float
    typical: LabeledView
    """The sampled view whose number of points is nearest to the mean: what the machine is probed with."""


def gather_statistics(
    plan: ViewSet,
    config: CacheConfig,
    detector: DetectorConfig,
    images: int,
    progress: Progress[LabeledView],
) -> ViewStatistics:
    """Plan a sample of views.

    Args:
        plan: Of a dataset, or of a sample of one.
        config: Of the store.
        detector: The teacher.
        images: How many images the dataset has; the sample stands for them.
        progress: Is shown the planned views.

    Raises:
        DatasetError: There is no image to plan.
    """
    if not plan.manifest.images:
        raise DatasetError(f"{plan.manifest.root}: expected images with boxes, but there are none")
    keys = list(_sampled_keys(plan))
    with one_thread():
        next(_plan_each(plan, keys[:1]))  # what torch does once should not count
        planned = progress(_plan_each(plan, keys), len(keys), "plan")
        table, seconds = timed_call(ViewIndex.from_views, planned)
    schema = plan_schema(
        table,
        bins=detector.bins,
        num_classes=detector.num_classes,
        strides=detector.strides,
        precision=config.precision,
        views_per_partition=config.views_per_partition,
        fingerprint={},
        provenance={},
    )
    points, main, boxes = table.counts.mean(axis=0)
    nearest = int(np.abs(table.counts[:, 0] - points).argmin())
    return ViewStatistics(
        images=images,
        views=images * len(plan.views.numbers),
        sampled_views=len(keys),
        points_per_view=float(points),
        main_points_per_view=float(main),
        boxes_per_view=float(boxes),
        pixels_per_view=float(table.geometry[:, 4:6].astype(float).prod(axis=1).mean()),
        store_bytes_per_view=estimate_bytes(schema, table) / len(keys),
        plan_seconds_per_view=seconds / len(keys),
        typical=next(iter(_plan_each(plan, keys[nearest : nearest + 1]))),
    )


def _sampled_keys(plan: ViewSet) -> Iterator[tuple[int, int]]:
    """Place of an image and number of a view: a few views of each image, other ones for the next."""
    total, numbers = len(plan.manifest.images), plan.views.numbers
    places = np.unique(np.linspace(0, total - 1, min(total, SAMPLED_IMAGES)).astype(int))
    for turn, place in enumerate(places.tolist()):
        turned = {(turn * VIEWS_PER_IMAGE + offset) % len(numbers) for offset in range(VIEWS_PER_IMAGE)}
        yield from ((place, number) for number in sorted(turned))


def _plan_each(plan: ViewSet, keys: Iterable[tuple[int, int]]) -> Iterator[LabeledView]:
    return (plan.view(ViewKey(plan.manifest.images[place].image_id, number)) for place, number in keys)
