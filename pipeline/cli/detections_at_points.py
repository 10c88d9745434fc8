"""Detections from logits at single points: what a store holds of a teacher, as boxes."""

import torch

from pipeline.detector.head import Integral
from pipeline.detector.model import ModelSpec
from pipeline.evaluation.postprocess import Detections, select_detections
from pipeline.views.box_ops import clip_boxes, decode_boxes
from pipeline.views.geometry import scale_factors
from pipeline.views.types import LabeledView, SoftTargets


def detect_at_points(planned: LabeledView, soft: SoftTargets, spec: ModelSpec) -> Detections:
    """Detections among the main-region points of a view that is not flipped, px of the original image.

    The main region is where the annotations put the objects: nothing is said elsewhere, and so nothing can
    be found there that is not. The AP of such detections is not that of the detector; it is for comparison
    with other logits at the same points.
    """
    assert not planned.geometry.flip, "boxes are not mirrored back"
    main = planned.points.main_region
    grid = spec.pyramid.grid(planned.geometry.padded_hw)
    flat = grid.flatten(planned.points.level[main], planned.points.position[main])
    stride = torch.from_numpy(grid.point_strides[flat])
    distances = Integral(spec.bins - 1)(torch.from_numpy(soft.edge_logits[main])) * stride[:, None]
    corner = torch.tensor(planned.geometry.content_top_left[::-1])
    boxes = decode_boxes(torch.from_numpy(grid.points[flat]) - corner, distances)
    boxes = clip_boxes(boxes, planned.geometry.content_hw) / torch.from_numpy(scale_factors(planned.geometry))
    return select_detections(boxes, torch.from_numpy(soft.cls_logits).sigmoid(), spec.suppression)
