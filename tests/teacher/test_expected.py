"""The estimate of a store's size against stores that were written and curves that were measured."""

import numpy as np
import pytest

from pipeline.codec.precision import Precision
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.teacher.expected import estimate_bytes

SHAPES = {"views": 4000, "boxes": 11366, "points": 336606, "main": 73001, "bins": 17, "classes": 4}
RELEASED = {"views": 89, "boxes": 794, "points": 75699, "main": 4694, "bins": 8, "classes": 80}
DIOU = {**RELEASED, "points": 50644}
"""NanoDet-Plus over 89 COCO images, with the two definitions of the valuable region."""

MEASURED = [
    (SHAPES, 0.03, 0.03, 18_995_939),
    (SHAPES, None, None, 74_314_363),
    (RELEASED, 0.04, 0.03, 21_002 * 89),
    (RELEASED, 0.2, 0.15, 12_500 * 89),
    (RELEASED, None, None, 9_403_381),
    (DIOU, 0.04, 0.03, 17_498 * 89),
    (DIOU, 0.2, 0.15, 10_999 * 89),
    (DIOU, None, None, 6_679_546),
]


@pytest.mark.parametrize(("sizes", "edge_step", "cls_step", "measured"), MEASURED)
def test_the_estimate_is_not_too_small_and_at_most_four_tenths_too_large(
    sizes: dict[str, int], edge_step: float | None, cls_step: float | None, measured: int
) -> None:
    precision = Precision(edge_step=edge_step, max_step_factor=8.0, cls_step=cls_step)
    table = table_of(sizes)
    layout = StoreSchema(
        bins=sizes["bins"],
        num_classes=sizes["classes"],
        strides=(8, 16, 32),
        precision=precision,
        views_per_partition=512,
        fingerprint={},
        provenance={},
    )
    schema = fit_schema(layout, table)
    assert 0.98 <= estimate_bytes(schema, table) / measured <= 1.42


def table_of(sizes: dict[str, int]) -> ViewIndex:
    """Totals in the first view: only sums matter."""
    views, boxes = sizes["views"], sizes["boxes"]
    counts = np.zeros((views, 3), np.int64)
    counts[0] = sizes["points"], sizes["main"], boxes
    return ViewIndex(
        image_id=np.arange(views),
        view=np.zeros(views, np.int32),
        geometry=np.zeros((views, 7), np.int32),
        counts=counts,
        boxes_xyxy=np.zeros((boxes, 4), np.float32),
        labels=np.zeros(boxes, np.int32),
    )
