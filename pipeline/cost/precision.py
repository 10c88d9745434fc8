"""Before the teacher runs over all views: whether the precision will keep the bounds of ``verify_cache``."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.codec.precision import Precision
from pipeline.core.errors import ConfigError
from pipeline.core.progress import describe_bytes
from pipeline.detector.device import device
from pipeline.fidelity.config import load_fidelity
from pipeline.fidelity.fidelity import exceeded_bound, find_precision, measure_quantization, sample_keys
from pipeline.store.format.schema import StoreSchema, sharded_specs
from pipeline.store.format.table import ViewIndex, make_schema
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import PartitionRows, quantize_partition
from pipeline.teacher.inputs import StoreInputs
from pipeline.views.types import LabeledView, SoftTargets

logger = logging.getLogger(__name__)

LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)


def probe_precision(inputs: StoreInputs, params: Path) -> None:
    """Run the teacher on the views that ``verify_cache`` will look at.

    Raises:
        ConfigError: The steps are too coarse; names the figure, its bound, and the coarsest steps tried that
            keep all bounds, with the bytes of both.
    """
    config, strides = load_fidelity(params), inputs.view_set.strides
    if inputs.config.precision.lossless:
        return
    keys = sample_keys(inputs.view_set.keys(), config.views, config.seed)
    views = [inputs.view_set.view(key) for key in keys]
    live = list(inputs.load_teacher(device()).run(views))
    base = sample_schema(views, live, strides, inputs.config.precision)

    def words(precision: Precision) -> str:
        schema = replace(base, precision=precision)
        size = sum(encoded_sizes(schema, quantize_partition(schema, views, live)).values()) / len(views)
        steps = {name: getattr(precision, name) or "null" for name in ("edge_step", "cls_step")}
        shown = ", ".join(f"{name}: {step}" for name, step in steps.items())
        return f"{{{shown}}} ({describe_bytes(size)} a view)"

    fidelity = measure_quantization(base, views, live, config)
    tried = words(base.precision)
    logger.info("%d views with %s: gradient off by %.2g", len(views), tried, fidelity.gradient_error)
    problem = exceeded_bound(fidelity, config)
    if problem:
        finer = find_precision(base, views, live, config) or LOSSLESS
        raise ConfigError(
            f"{params}: cache_teacher.precision: {problem} on {len(views)} views with {tried}; "
            f"choose {words(finer)}, which keeps the bounds of verify_cache"
        )


def sample_schema(
    views: Sequence[LabeledView],
    targets: Sequence[SoftTargets],
    strides: tuple[int, ...],
    precision: Precision,
) -> StoreSchema:
    """A store that holds a sample as its only partition."""
    return make_schema(
        ViewIndex.from_views(views),
        bins=targets[0].edge_logits.shape[-1],
        num_classes=targets[0].cls_logits.shape[-1],
        strides=strides,
        precision=precision,
        views_per_partition=len(views),
        fingerprint={},
        provenance={},
        pixels=targets[0].pixels is not None,
        valuable_classes=any(
            len(soft.cls_logits) > view.points.main_count for soft, view in zip(targets, views, strict=True)
        ),
    )


def encoded_sizes(schema: StoreSchema, rows: PartitionRows) -> dict[str, int]:
    """Bytes that each array of a partition takes in a store."""
    return {
        spec.path: len(encode_shard(spec, rows.arrays[spec.path])) if len(rows.arrays[spec.path]) else 0
        for spec in sharded_specs(schema)
    }
