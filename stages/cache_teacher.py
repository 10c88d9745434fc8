"""Run the teacher once over all views and write what distillation reads into a zarr store."""

from pathlib import Path

from pipeline.config import load_section
from pipeline.data.manifest import read_manifest
from pipeline.detector.gfl import load_detector
from pipeline.errors import TeacherError
from pipeline.planning import ViewPlan
from pipeline.progress import show_progress
from pipeline.teacher.cache_views import CacheConfig, plan_store, require_disk, write_store
from pipeline.teacher.fingerprint import file_sha256, store_fingerprint
from pipeline.teacher.soft_targets import Teacher
from stages.runtime import device, run_stage, timed

WEIGHTS = Path("teacher/model/teacher.safetensors")
STORE = Path("cache/targets.zarr")
SCRATCH = Path("scratch")


def main() -> None:
    """Run the stage."""
    config = load_section(CacheConfig, "cache_teacher")
    manifest = read_manifest(Path("data/manifest/train.json"))
    model = load_detector(WEIGHTS)
    if model.config.num_classes != len(manifest.categories):
        raise TeacherError(
            f"{WEIGHTS}: expected a teacher of the dataset's {len(manifest.categories)} classes, "
            f"but it has {model.config.num_classes}"
        )
    plan = ViewPlan(
        manifest=manifest, strides=model.config.strides, views=config.views, regions=config.regions
    )
    teacher = Teacher(model=model, manifest=manifest, batch_size=config.batch_size, device=device())
    planned = plan_store(
        plan,
        config,
        num_classes=model.config.num_classes,
        bins=model.config.bins,
        fingerprint=store_fingerprint(
            plan, model.config, file_sha256(WEIGHTS), config.precision, config.batch_size
        ),
        provenance={"method": "Localization Distillation, CVPR 2022", "teacher": model.config.backbone},
        progress=show_progress,
    )
    SCRATCH.mkdir(exist_ok=True)
    require_disk(planned, SCRATCH)
    with timed(STORE.parent / "timing.json", views=planned.schema.views):
        write_store(planned, plan, teacher, scratch_root=SCRATCH, output=STORE, progress=show_progress)


if __name__ == "__main__":
    run_stage(main)
