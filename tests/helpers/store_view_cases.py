"""A store of five kinds of views, whose teacher points at distances 3, 1, 2 and 4 strides."""

from pathlib import Path

import numpy as np
from batch_cases import labeled_view
from store_cases import store_case_of, write_store

from pipeline.codec.precision import Precision
from pipeline.store.reader.reader import TargetStore
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, SoftTargets

BINS, CLASSES = 17, 3
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)
EMPTY, FEW, CROWDED, WIDE, HIGH = range(5)


def labeled(number: int, size_hw: tuple[int, int], boxes: int, strides: tuple[int, ...]) -> LabeledView:
    rng = np.random.default_rng(number)
    corners = rng.uniform(0, 0.6, (boxes, 2)) * size_hw[::-1]
    sides = rng.uniform(0.15, 0.4, (boxes, 2)) * size_hw[::-1]
    labels = rng.integers(0, CLASSES, boxes)
    boxes_xyxy = np.concatenate([corners, corners + sides], axis=1)
    return labeled_view(number, size_hw, boxes_xyxy, labels, Pyramid(strides, 0.0))


def targets(view: LabeledView) -> SoftTargets:
    """Distributions that point at distances 3, 1, 2 and 4 strides, and classes that grow along the points."""
    points, main = len(view.points), view.points.main_count
    distances = np.array([3, 1, 2, 4])[:, None]
    edges = np.where(np.arange(BINS) == distances, 30.0, 0.0)
    classes = np.arange(main)[:, None] / 10 + np.zeros(CLASSES)
    return SoftTargets(
        edge_logits=np.broadcast_to(edges, (points, 4, BINS)).astype(np.float32),
        cls_logits=classes.astype(np.float32),
    )


def write_store_to_show(
    folder: Path, strides: tuple[int, ...], precision: Precision = LOSSLESS
) -> TargetStore:
    sizes = [((96, 96), 0), ((96, 96), 2), ((120, 160), 30), ((40, 300), 3), ((300, 40), 3)]
    views = [labeled(number, size, boxes, strides) for number, (size, boxes) in enumerate(sizes)]
    fingerprint = {"classes": [7, 300, 301], "class_names": ["cat", "dog", "cow"]}
    layout = {"bins": BINS, "strides": strides, "views_per_partition": 5, "fingerprint": fingerprint}
    case = store_case_of(views, precision, [targets(view) for view in views], **layout)
    return TargetStore.open(write_store(folder, case))
