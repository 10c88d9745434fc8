"""A few rendered images, their views, and a small random teacher."""

from pathlib import Path
from typing import Any

import torch
from project import write_dataset

from pipeline.codec.precision import Precision
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import ShapesConfig
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, gfl_spec
from pipeline.onnx.models import GflHandle
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.teacher.inputs import StoreInputs
from pipeline.teacher.layout import StoreLayout, layout_store
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewsConfig
from pipeline.views.manifest import Manifest

DETECTOR = DetectorConfig(
    backbone="mobilenet_v3_small",
    dcn_stages=(),
    dcn_modulated=False,
    channels=16,
    levels=3,
    stacked_convs=1,
    norm_groups=4,
    reg_max=16,
    num_classes=4,
)
VIEWS = ViewsConfig(scales=((64, 64),), flips=(False, True))
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)
QUANTIZED = Precision(edge_step=0.04, max_step_factor=8.0, cls_step=0.04)


def small_manifest(folder: Path, images: int = 5) -> Manifest:
    root = folder / "shapes"
    if not root.exists():
        config = ShapesConfig(seed=5, train_images=images, val_images=2, long_edge=64, annotation_noise=0.1)
        write_dataset(config, root)
    return read_coco(root / "annotations/instances_train.json", str(root), "train")


def small_view_set(folder: Path, images: int = 5) -> ViewSet:
    manifest = small_manifest(folder, images)
    return ViewSet(manifest, DETECTOR.strides, VIEWS, RegionsConfig(), GFL_CONVENTIONS)


def small_teacher(manifest: Manifest, seed: int = 0, **options: Any) -> LogitExtractor:
    torch.manual_seed(seed)
    model = GFL(DETECTOR)
    # Random heads say almost nothing; louder ones make distributions that differ.
    with torch.no_grad():
        model.bbox_head.gfl_reg.weight.mul_(60)
        model.bbox_head.gfl_cls.weight.mul_(60)
    return LogitExtractor(model, manifest, small_config(QUANTIZED, **options), torch.device("cpu"))


def small_config(precision: Precision, **options: Any) -> CacheConfig:
    defaults = {"views": VIEWS, "views_per_partition": 4, "batch_size": 3}
    return CacheConfig(precision=precision, **(defaults | options))


def small_layout(view_set: ViewSet, precision: Precision, weights: str = "w", **options: Any) -> StoreLayout:
    inputs = small_inputs(view_set, precision, weights, **options)
    return layout_store(view_set, inputs.config, inputs.spec, inputs.fingerprint)


def small_inputs(view_set: ViewSet, precision: Precision, weights: str = "w", **options: Any) -> StoreInputs:
    spec = gfl_spec(DETECTOR, view_set.conventions)
    handle = GflHandle(weights=Path(weights), spec=spec, architecture=DETECTOR.to_json())
    return StoreInputs(small_config(precision, **options), view_set, handle, weights)
