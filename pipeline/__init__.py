"""Distil dense object detectors from a teacher that runs once; ``pipeline/README.md`` is the map.

What a training loop of one's own needs has one import path each, here. Nothing is loaded before it is used:
``open_store`` loads numpy, numcodecs, a crc library and msgspec; what works on tensors loads torch as well.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchvision.ops import distance_box_iou_loss as diou_loss

    from pipeline.api.placement import TargetBatch, place_targets
    from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss
    from pipeline.losses.detection import (
        ciou_loss,
        distribution_focal_loss,
        giou_loss,
        quality_focal_loss,
    )
    from pipeline.losses.distillation import kd_divergence
    from pipeline.store.reader.reader import TargetStore
    from pipeline.store.reader.stored import DecodedView
    from pipeline.views.types import ViewKey

    open_store = TargetStore.open

_LOSSES = "pipeline.losses.detection"
_WHERE = {
    "DecodedView": "pipeline.store.reader.stored:DecodedView",
    "TargetBatch": "pipeline.api.placement:TargetBatch",
    "TargetStore": "pipeline.store.reader.reader:TargetStore",
    "ViewKey": "pipeline.views.types:ViewKey",
    "bckd_box_loss": "pipeline.losses.bckd:bckd_box_loss",
    "bckd_cls_loss": "pipeline.losses.bckd:bckd_cls_loss",
    "ciou_loss": f"{_LOSSES}:ciou_loss",
    "diou_loss": "torchvision.ops:distance_box_iou_loss",
    "distribution_focal_loss": f"{_LOSSES}:distribution_focal_loss",
    "giou_loss": f"{_LOSSES}:giou_loss",
    "kd_divergence": "pipeline.losses.distillation:kd_divergence",
    "open_store": "pipeline.store.reader.reader:TargetStore.open",
    "place_targets": "pipeline.api.placement:place_targets",
    "quality_focal_loss": f"{_LOSSES}:quality_focal_loss",
}

__all__ = [
    "DecodedView",
    "TargetBatch",
    "TargetStore",
    "ViewKey",
    "bckd_box_loss",
    "bckd_cls_loss",
    "ciou_loss",
    "diou_loss",
    "distribution_focal_loss",
    "giou_loss",
    "kd_divergence",
    "open_store",
    "place_targets",
    "quality_focal_loss",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, resolve_name(_WHERE[name]))


def __dir__() -> list[str]:
    """The names that can be imported, loaded or not."""
    return sorted(__all__)
