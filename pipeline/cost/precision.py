"""Before the teacher runs over all views: whether the precision will keep the bounds of ``verify_cache``."""

import logging
from dataclasses import replace
from pathlib import Path

from pipeline.codec.precision import Precision
from pipeline.core.errors import ConfigError
from pipeline.core.progress import describe_bytes
from pipeline.detector.device import device
from pipeline.fidelity.config import load_fidelity
from pipeline.fidelity.fidelity import exceeded_bound, find_precision, measure_quantization, sample_keys
from pipeline.store.format.schema import sharded_specs
from pipeline.store.format.table import ViewIndex, make_schema
from pipeline.store.writer.arrays import encode_shard
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.inputs import StoreInputs

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
    base = make_schema(
        ViewIndex.from_views(views),
        bins=inputs.spec.bins,
        num_classes=inputs.spec.num_classes,
        strides=strides,
        precision=inputs.config.precision,
        views_per_partition=len(views),
        fingerprint={},
        provenance={},
        pixels=live[0].pixels is not None,
        valuable_classes=inputs.config.valuable_classes,
    )

    def words(precision: Precision) -> str:
        schema = replace(base, precision=precision)
        arrays = quantize_partition(schema, views, live).arrays
        specs = [spec for spec in sharded_specs(schema) if len(arrays[spec.path])]
        size = sum(len(encode_shard(spec, arrays[spec.path])) for spec in specs) / len(views)
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
