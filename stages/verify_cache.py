"""Check every file of the store, and compare a sample of it with the live teacher."""

from dataclasses import asdict, replace
from functools import reduce
from operator import or_

from msgspec import structs

from pipeline.core.errors import CacheError
from pipeline.core.files import write_json
from pipeline.core.stage import logger, run_stage, stage_inputs
from pipeline.detector.device import device
from pipeline.fidelity.config import load_fidelity
from pipeline.fidelity.fidelity import Measured, measure_dense, measure_fidelity, require_bounds, sample_keys
from pipeline.store.format.attributes import check_compatible
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.views.manifest import read_split


def main() -> None:
    """Run the stage."""
    cached, folder, params = stage_inputs(CacheConfig, "cache_teacher", __doc__)
    config = load_fidelity(params)
    if problems := verify(folder.store):
        first = problems[0]
        raise CacheError(
            f"{folder.store}: {len(problems)} damaged files, the first is {first.file}: {first.message}; "
            "`ldp store repair` makes them again"
        )
    store = TargetStore.open(folder.store)
    setup = load_inputs(cached, read_split(folder, "train"), folder.teacher_weights)
    # An older format says the same, coded otherwise.
    made_here = {**setup.fingerprint, "format_version": store.schema.format_version}
    check_compatible(store.fingerprint, made_here, exactly=True)
    # What a lower precision costs is a part of what is measured.
    exact = structs.replace(cached, forward_precision="float32", dense=None)
    teacher = replace(setup, config=exact).load_teacher(device())
    keys = sample_keys(store.keys, config.views, config.seed)
    fidelity = measure_fidelity(store, setup.view_set, teacher, config, keys)
    figures = (fidelity.views, fidelity.kl_mean, fidelity.loss_error, fidelity.gradient_error)
    logger.info("fidelity over %d views: KL %.2g, LD loss off by %.2g, gradient by %.2g", *figures)
    measured: list[Measured] = [fidelity]
    if store.schema.dense:
        measured.append(measure_dense(store, setup.view_set, teacher, config.seed, keys))
    # The figures stay, whatever they are.
    write_json(folder.fidelity, reduce(or_, map(asdict, measured)))
    write_json(folder.metrics("store/fidelity"), {"fidelity_error": fidelity.loss_error})
    for each in measured:
        require_bounds(each, config)


if __name__ == "__main__":
    run_stage(main)
