"""Check every file of the store, and compare a sample of it with the live teacher."""

import logging
from dataclasses import asdict
from pathlib import Path

from pipeline.cache.reader import TargetStore
from pipeline.cache.verify import verify
from pipeline.config import load_section
from pipeline.data.manifest import read_manifest
from pipeline.errors import CacheError
from pipeline.teacher.cache_views import CacheConfig
from pipeline.teacher.fidelity import FidelityConfig, measure_fidelity, require_bounds, sample_keys
from pipeline.teacher.setup import set_up_store
from stages.runtime import device, run_stage, write_json

STORE = Path("cache/targets.zarr")

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the stage."""
    config = load_section(FidelityConfig, "verify_cache")
    cached = load_section(CacheConfig, "cache_teacher")
    problems = verify(STORE, lambda _done, _total: None)
    if problems:
        first = problems[0]
        raise CacheError(
            f"{STORE}: {len(problems)} damaged files, the first is {first.file}: {first.message}"
        )
    store = TargetStore.open(STORE)
    manifest = read_manifest(Path("data/manifest/train.json"))
    setup = set_up_store(cached, manifest, Path("teacher/model/teacher.safetensors"))
    teacher = setup.load_teacher(device())
    fidelity = measure_fidelity(store, setup.plan, teacher, config, sample_keys(store, config))
    logger.info(
        "fidelity over %d views: KL %.2g, LD loss off by %.2g, gradient by %.2g",
        fidelity.views,
        fidelity.kl_mean,
        fidelity.loss_error,
        fidelity.gradient_error,
    )
    write_json(Path("cache/fidelity.json"), asdict(fidelity))
    require_bounds(fidelity, config)


if __name__ == "__main__":
    run_stage(main)
