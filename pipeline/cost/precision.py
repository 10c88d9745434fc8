"""Before the teacher runs over all views: whether it finds objects, and the precision keeps the bounds."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.codec.precision import Precision
from pipeline.core.config import load_section
from pipeline.core.errors import ConfigError
from pipeline.core.progress import describe_bytes
from pipeline.detector.device import device
from pipeline.detector.model import ModelSpec
from pipeline.fidelity.config import load_fidelity
from pipeline.fidelity.fidelity import exceeded_bound, find_precision, measure_quantization, sample_keys
from pipeline.store.format.schema import StoreSchema, sharded_specs
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.inputs import StoreInputs
from pipeline.training.config import RANDOM_WEIGHTS, PrepareTeacherConfig
from pipeline.views.box_ops import box_iou, decode_boxes, expected_distances
from pipeline.views.types import LabeledView, SoftTargets

logger = logging.getLogger(__name__)

LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)

MIN_IOU = 0.5
"""NanoDet has 0.67 on COCO, and 0.24-0.46 if it is wrongly described; 0.67 with swapped colors."""


def probe_precision(inputs: StoreInputs, schema: StoreSchema, params: Path) -> None:
    """Run the teacher on the views of ``verify_cache``; warn if it was given and does not find the objects.

    A ``ConfigError`` names the bound that too coarse steps break, and the coarsest tried that break none,
    with the bytes of both.
    """
    config, precision = load_fidelity(params), inputs.config.precision
    source = load_section(PrepareTeacherConfig, "prepare_teacher", params)
    given = source.train is None and source.source != RANDOM_WEIGHTS
    if precision.lossless and not given:
        return
    keys = sample_keys(inputs.view_set.keys(), config.views, config.seed)
    views = [inputs.view_set.view(key) for key in keys]
    live = list(inputs.load_teacher(device()).run(views))
    if given and (doubt := doubt_teacher(inputs.spec, views, live)):
        # A safetensors file has a description of this project's own, and few ways to be described wrongly.
        advice = "check` tries whether its description is wrong" if source.is_onnx else "evaluate` has its AP"
        warning = "WARNING: %s: on %d views %s; `ldp teacher %s"
        logger.warning(warning, source.source, len(views), doubt, advice)
    if precision.lossless:
        return
    base = replace(schema, views_per_partition=len(views), dense=None)
    base = fit_schema(base, ViewIndex.from_views(views))
    if problem := exceeded_bound(measure_quantization(base, views, live, config), config):
        finer = replace(base, precision=find_precision(base, views, live, config) or LOSSLESS)
        raise ConfigError(
            f"{params}: cache_teacher.precision: {problem} on {len(views)} views with "
            f"{_describe(base, views, live)}; choose {_describe(finer, views, live)}, which keeps the bounds "
            "of verify_cache"
        )


def _describe(schema: StoreSchema, views: Sequence[LabeledView], live: Sequence[SoftTargets]) -> str:
    """A schema's steps, as a parameter file has them, and what a view takes with them."""
    arrays = quantize_partition(schema, views, live).arrays
    specs = [spec for spec in sharded_specs(schema) if len(arrays[spec.path])]
    shards = [encode_shard(spec, arrays[spec.path])[0] for spec in specs]
    edge, cls = (step or "null" for step in (schema.precision.edge_step, schema.precision.cls_step))
    size = describe_bytes(sum(map(len, shards)) / len(views))
    return f"{{edge_step: {edge}, cls_step: {cls}}} ({size} a view)"


def doubt_teacher(spec: ModelSpec, views: Sequence[LabeledView], live: Sequence[SoftTargets]) -> str | None:
    """Why a teacher does not seem to find the objects at the main region's points; ``None`` if it does."""
    ious, right, labels = [], [], []
    for view, soft in zip(views, live, strict=True):
        points, main = view.points, view.points.main_region
        grid = spec.pyramid.grid(view.geometry.padded_hw)
        rows = grid.flatten(points.level[main], points.position[main])
        distances = expected_distances(torch.from_numpy(soft.edge_logits[main]))
        strides = torch.from_numpy(grid.point_strides[rows, None])
        boxes = decode_boxes(torch.from_numpy(grid.points[rows]), distances * strides)
        objects = points.main_gt[main]
        ious.append(box_iou(boxes, torch.from_numpy(view.boxes_xyxy[objects])).numpy())
        labels.append(view.labels[objects])
        right.append(points.at_main(soft.cls_logits).argmax(axis=1) == labels[-1])
    iou, correct, label = map(np.concatenate, (ious, right, labels))
    if not len(label):
        return None
    # Class by class: half of the objects may be of one class that is right among many that are not.
    known = float(np.mean([correct[label == each].mean() for each in np.unique(label)]))
    # A third of the way from chance: NanoDet has 0.6 of COCO's 80 classes, and at most 0.05 in a wrong order.
    if iou.mean() >= MIN_IOU and known >= (1 + 2 / spec.num_classes) / 3:
        return None
    return f"its boxes overlap the objects by {iou.mean():.2f} (mean IoU), {known:.0%} are of the right class"
