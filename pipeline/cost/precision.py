"""Before the teacher runs over all views: whether it finds objects, and the precision keeps the bounds."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

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
from pipeline.training.batches import batch_labels
from pipeline.training.config import RANDOM_WEIGHTS, PrepareTeacherConfig
from pipeline.views.box_ops import box_iou, decode_boxes, expected_distances
from pipeline.views.types import LabeledView, SoftTargets

logger = logging.getLogger(__name__)

MIN_IOU = 0.5
"""NanoDet has 0.67 on COCO, and 0.24-0.46 if it is wrongly described; 0.67 with swapped colors."""


def probe_precision(inputs: StoreInputs, schema: StoreSchema, params: Path) -> None:
    """Run the teacher on the views of ``verify_cache``; warn if it was given and does not find the objects.

    A ``ConfigError`` names the bound that too coarse steps break, and coarse ones that keep it, with the
    bytes of both.
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
        # A safetensors file is described by this project, and hardly wrongly.
        advice = "check` tries whether its description is wrong" if source.is_onnx else "evaluate` has its AP"
        warning = "WARNING: %s: on %d views %s; `ldp teacher %s"
        logger.warning(warning, source.source, len(views), doubt, advice)
    if precision.lossless:
        return
    base = replace(schema, views_per_partition=len(views), dense=None)
    base = fit_schema(base, ViewIndex.from_views(views))
    if problem := exceeded_bound(measure_quantization(base, views, live, config), config):
        precision = find_precision(base, views, live, config) or Precision(edge_step=None, cls_step=None)
        finer = replace(base, precision=precision)
        raise ConfigError(
            f"{params}: cache_teacher.precision: {problem} on {len(views)} views with "
            f"{_describe(base, views, live)}; choose {_describe(finer, views, live)}, which keeps the bounds "
            "of verify_cache"
        )


def _describe(schema: StoreSchema, views: Sequence[LabeledView], live: Sequence[SoftTargets]) -> str:
    """Steps, as a parameter file has them, and what a view takes with them."""
    arrays = quantize_partition(schema, views, live).arrays
    specs = [spec for spec in sharded_specs(schema) if len(arrays[spec.path])]
    shards = [encode_shard(spec, arrays[spec.path])[0] for spec in specs]
    edge, cls = (step or "null" for step in (schema.precision.edge_step, schema.precision.cls_step))
    size = describe_bytes(sum(map(len, shards)) / len(views))
    return f"{{edge_step: {edge}, cls_step: {cls}}} ({size} a view)"


def doubt_teacher(spec: ModelSpec, views: Sequence[LabeledView], live: Sequence[SoftTargets]) -> str | None:
    """Why a teacher does not seem to find the objects at the main region's points; ``None`` if it does."""
    heights, widths = zip(*(view.geometry.padded_hw for view in views), strict=True)
    objects = batch_labels(views, (max(heights), max(widths)), spec.pyramid)
    if not len(objects.labels):
        return None
    edges = torch.from_numpy(np.concatenate([soft.edge_logits for soft in live]))[objects.main]
    classes = objects.at_main(torch.from_numpy(np.concatenate([soft.cls_logits for soft in live])))
    boxes = decode_boxes(objects.points_xy, expected_distances(edges) * objects.strides[:, None])
    iou = float(box_iou(boxes, objects.boxes_xyxy).mean())
    right = (classes.argmax(dim=1) == objects.labels).float()
    # Class by class: half of the objects may be of one class that is right among many that are not.
    known = fmean(float(right[objects.labels == each].mean()) for each in set(objects.labels.tolist()))
    # A third of the way from chance: NanoDet has 0.6 of COCO's 80 classes, and at most 0.05 in a wrong order.
    if iou >= MIN_IOU and known >= (1 + 2 / spec.num_classes) / 3:
        return None
    return f"its boxes overlap the objects by {iou:.2f} (mean IoU), {known:.0%} are of the right class"
