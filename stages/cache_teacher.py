"""Run the teacher once over all views and write what distillation reads into a zarr store."""

from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from pipeline.core.environment import Environment, core_count
from pipeline.core.files import os_errors_as_output_error, write_json
from pipeline.core.paths import SCRATCH, RunPaths
from pipeline.core.progress import timed_call
from pipeline.core.stage import run_stage, stage_inputs
from pipeline.detector.device import device, worker_environments
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import StoreInputs, load_inputs
from pipeline.teacher.layout import layout_store, probe_dense, require_disk, say_if_larger, scratch_folder
from pipeline.teacher.run import PARTITIONS_IN_FLIGHT, Engine, fill_store, write_here
from pipeline.views.manifest import read_split


def main() -> None:
    """Run the stage."""
    config, folder, params = stage_inputs(CacheConfig, "cache_teacher", __doc__)
    setup = load_inputs(config, read_split(folder, "train"), folder.teacher_weights)
    setup = replace(setup, view_set=setup.view_set.remembering())
    engine = choose_engine(setup, folder)
    views, made_from = setup.view_set, setup.fingerprint
    layout = layout_store(views, config, setup.spec, made_from, workers=core_count(), shown=True)
    if config.dense:
        probed = probe_dense(setup.load_teacher(device()), views, layout.schema)
        layout = replace(layout, dense_row_bytes=probed)
    with os_errors_as_output_error(SCRATCH):
        SCRATCH.mkdir(exist_ok=True)
    require_disk(layout, SCRATCH)
    if not scratch_folder(layout.schema, SCRATCH).exists():  # a store that was begun has passed
        # By name, as in core.stage: what may refuse a precision changes no byte of a store.
        import_module("pipeline.cost.precision").probe_precision(setup, layout.schema, params)
    output = folder.store
    times, seconds = timed_call(fill_store, layout, engine, scratch_root=SCRATCH, output=output, shown=True)
    say_if_larger(output, layout)
    facts = {"seconds": round(seconds, 2), "device": str(device()), "views": layout.schema.views}
    if times.views:
        facts |= {"device": ", ".join(sorted(times.devices)), "workers": len(times.workers)}
        facts |= {"computed_views": times.views, "bottleneck": times.bottleneck}
    write_json(folder.cache_timing, facts)


def choose_engine(setup: StoreInputs, folder: RunPaths) -> Engine:
    """This process, processes of this machine, or the workers of a scheduler, as the environment says."""
    scheduler, chosen = Environment.read().dask_scheduler, device()
    environments = worker_environments(chosen)
    # On the CPU OMP_NUM_THREADS bounds what computes; a GPU's cores decode.
    cores = torch.get_num_threads() if chosen.type == "cpu" else core_count()
    if scheduler is None and len(environments) == 1:
        return partial(write_here, setup.view_set, partial(setup.load_teacher, chosen), cores)
    # Dask takes a second or two to load, which one process need not wait for.
    from pipeline.core.cluster import existing_cluster, local_cluster  # noqa: PLC0415
    from pipeline.teacher.workers import PartitionJob, write_in_workers  # noqa: PLC0415

    make_job = partial(
        PartitionJob,
        manifest=folder.manifest("train").absolute(),
        images=Path(setup.view_set.manifest.root).absolute(),
        weights=folder.teacher_weights.absolute(),
        config=setup.config,
        device=str(chosen) if scheduler is None else Environment.read().device,
        cores=max(1, cores // len(environments)) if scheduler is None else None,
    )
    local = partial(local_cluster, environments, PARTITIONS_IN_FLIGHT)
    return partial(write_in_workers, partial(existing_cluster, scheduler) if scheduler else local, make_job)


if __name__ == "__main__":
    run_stage(main)
