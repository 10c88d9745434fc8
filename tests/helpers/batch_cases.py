"""Small labeled views and batches for the tests of training and distillation."""

import numpy as np
import torch
from numpy.typing import ArrayLike

from pipeline.detector.head import RawOutputs
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import label_views
from pipeline.views.geometry import ViewsConfig
from pipeline.views.manifest import GroundTruth
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, ViewKey

PYRAMID = Pyramid((8, 16, 32), 0.0)
BINS = 17
CLASSES = 4
REGIONS = RegionsConfig()


def labeled_view(
    image_id: int, size_hw: tuple[int, int], boxes: ArrayLike, labels: ArrayLike, pyramid: Pyramid = PYRAMID
) -> LabeledView:
    """A view without resizing or flip."""
    views = ViewsConfig(scales=((max(size_hw), min(size_hw)),), flips=(False,))
    truth = GroundTruth(
        boxes_xyxy=np.asarray(boxes, np.float32).reshape(-1, 4), labels=np.asarray(labels, np.int64)
    )
    key = ViewKey(image_id, 0)
    return label_views([(key, views.geometry(size_hw, *key), truth)], pyramid, REGIONS)[key]


def three_views() -> list[LabeledView]:
    """Different sizes; the second has two boxes, the third none."""
    return [
        labeled_view(1, (64, 96), [[10, 8, 50, 40]], [2]),
        labeled_view(2, (96, 64), [[4, 4, 30, 60], [20, 40, 60, 90]], [0, 3]),
        labeled_view(3, (64, 64), [], []),
    ]


def random_outputs(images: int, batch_hw: tuple[int, int], seed: int = 0) -> RawOutputs:
    """Outputs of no model at all, that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    grid = PYRAMID.grid(batch_hw)
    cls_logits = torch.randn(images, len(grid), CLASSES, generator=generator) - 2
    edge_logits = torch.randn(images, len(grid), 4, BINS, generator=generator)
    return RawOutputs(
        cls_logits=cls_logits.requires_grad_(), edge_logits=edge_logits.requires_grad_(), sizes=grid.sizes
    )
