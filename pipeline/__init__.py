"""Distil dense object detectors from a teacher that runs once; ``pipeline/README.md`` is the map.

What a training loop of one's own needs has one import path each, here. Nothing is loaded before it is used:
``open_store`` loads numpy, numcodecs, a crc library and msgspec; what works on tensors loads torch as well.
"""

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchvision.ops import distance_box_iou_loss

    from pipeline.api.placement import TargetBatch as TargetBatch
    from pipeline.api.placement import place_targets as place_targets
    from pipeline.losses.detection import ciou_loss as ciou_loss
    from pipeline.losses.detection import distribution_focal_loss as distribution_focal_loss
    from pipeline.losses.detection import giou_loss as giou_loss
    from pipeline.losses.detection import quality_focal_loss as quality_focal_loss
    from pipeline.losses.distillation import bckd_box_loss as bckd_box_loss
    from pipeline.losses.distillation import bckd_cls_loss as bckd_cls_loss
    from pipeline.losses.distillation import kd_divergence as kd_divergence
    from pipeline.store.reader.reader import TargetStore as TargetStore
    from pipeline.store.reader.stored import DecodedView as DecodedView
    from pipeline.views.types import ViewKey as ViewKey

    diou_loss, open_store = distance_box_iou_loss, TargetStore.open

_MODULES = {
    "api.placement": ("TargetBatch", "place_targets"),
    "losses.detection": ("ciou_loss", "distribution_focal_loss", "giou_loss", "quality_focal_loss"),
    "losses.distillation": ("bckd_box_loss", "bckd_cls_loss", "kd_divergence"),
    "store.reader.reader": ("TargetStore",),
    "store.reader.stored": ("DecodedView",),
    "views.types": ("ViewKey",),
}
_WHERE = {
    "diou_loss": "torchvision.ops:distance_box_iou_loss",
    "open_store": "pipeline.store.reader.reader:TargetStore.open",
    **{name: f"pipeline.{module}:{name}" for module, names in _MODULES.items() for name in names},
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Load a name when it is first used (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, resolve_name(_WHERE[name]))
