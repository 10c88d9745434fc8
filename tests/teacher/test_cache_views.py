"""Caching: the store holds what the teacher says, survives a kill, and refuses what does not fit."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from teacher_cases import DETECTOR, LOSSLESS, QUANTIZED, small_plan, small_store_plan, small_teacher

from pipeline.cache import writer
from pipeline.cache.reader import TargetStore
from pipeline.cache.records import SoftTargets
from pipeline.codec.precision import Precision
from pipeline.errors import CacheError
from pipeline.student.source import require_fit
from pipeline.teacher.cache_views import StorePlan, expected_bytes, partition_views, require_disk, write_store
from pipeline.teacher.fidelity import FidelityConfig, measure_fidelity, require_bounds, sample_keys


class KilledError(Exception):
    """Stands for a process that dies."""


def write(folder: Path, planned: StorePlan, die_before: int | None = None) -> Path:
    """Write the small store; optionally die before a partition."""
    plan = small_plan(folder)

    def progress(items: Iterable[int], _total: int, _label: str) -> Iterable[int]:
        for index in items:
            if index == die_before:
                raise KilledError
            yield index

    output = folder / "targets.zarr"
    write_store(
        planned, plan, small_teacher(plan.manifest), scratch_root=folder, output=output, progress=progress
    )
    return output


def files_of(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_a_lossless_store_holds_the_teachers_words(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    store = TargetStore.open(write(tmp_path, small_store_plan(plan, LOSSLESS)))
    live = small_teacher(plan.manifest).run(list(plan))
    assert len(store) == 2 * len(plan.manifest.images)
    for view, soft in zip(plan, live, strict=True):
        stored = store.read(view.key)
        np.testing.assert_allclose(stored.edge_logits(), soft.edge_logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stored.cls_logits(), soft.cls_logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(stored.planned.boxes_xyxy, view.boxes_xyxy)
        np.testing.assert_array_equal(stored.planned.points.main_gt, view.points.main_gt)


def test_a_run_that_died_continues_to_the_same_bytes(tmp_path: Path) -> None:
    whole = write(tmp_path / "a", small_store_plan(small_plan(tmp_path / "a"), QUANTIZED))
    planned = small_store_plan(small_plan(tmp_path / "b"), QUANTIZED)
    with pytest.raises(KilledError):
        write(tmp_path / "b", planned, die_before=1)
    again = write(tmp_path / "b", planned, die_before=0)  # dies if partition 0 were written again
    assert files_of(whole) == files_of(again)


def test_a_store_is_planned_to_the_row_before_the_teacher_runs(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    planned = small_store_plan(plan, QUANTIZED)
    assert planned.table.counts[:, 0].tolist() == [len(view.points) for view in plan]
    store = TargetStore.open(write(tmp_path, planned))
    assert store.statistics["points"] == planned.table.counts[:, 0].sum()


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def test_a_store_never_takes_more_than_its_plan_says(tmp_path: Path, precision: Precision) -> None:
    """Even of outputs that nothing can compress. Shard indices and headers are counted apart."""
    plan = small_plan(tmp_path)
    planned = small_store_plan(plan, precision)
    rng = np.random.default_rng(0)
    writer.init(tmp_path / "scratch", planned.schema, planned.table)
    written = 0
    for index in range(planned.schema.partitions):
        views = partition_views(planned, plan, index)
        noise = [
            SoftTargets(
                edge_logits=rng.uniform(-25, 0, (len(v.points), 4, DETECTOR.bins)).astype(np.float32),
                cls_logits=rng.uniform(-3000, 3000, (v.points.main_count, 4)).astype(np.float32),
            )
            for v in views
        ]
        shards = writer.write_partition(tmp_path / "scratch", index, views, noise).shards.values()
        written += sum(shard.size - 64 for shard in shards)
    assert written <= expected_bytes(planned)


def test_a_store_that_cannot_fit_is_refused_before_the_teacher_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = small_store_plan(small_plan(tmp_path), QUANTIZED)
    require_disk(planned, tmp_path)
    usage = type("Usage", (), {"free": expected_bytes(planned) - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match=r"expected room for about 0\.00 GB, but 0\.00 GB are free"):
        require_disk(planned, tmp_path)


def fidelity(**changes: float) -> FidelityConfig:
    values = {"views": 4, "seed": 0, "temperature": 10.0, "cls_temperature": 2.0}
    bounds = {"max_kl": 1e-4, "max_loss_error": 0.02, "max_gradient_error": 0.1}
    return FidelityConfig(**(values | bounds | changes))  # type: ignore[arg-type]


def test_the_live_teacher_agrees_with_its_store_and_another_teacher_does_not(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    store = TargetStore.open(write(tmp_path, small_store_plan(plan, QUANTIZED)))
    keys = sample_keys(store, fidelity())
    same = measure_fidelity(store, plan, small_teacher(plan.manifest), fidelity(), keys)
    require_bounds(same, fidelity())
    assert same.equal_regions
    assert 0 < same.gradient_error < 0.1
    other = measure_fidelity(store, plan, small_teacher(plan.manifest, seed=1), fidelity(), keys)
    with pytest.raises(CacheError, match="fidelity: expected kl_mean of at most"):
        require_bounds(other, fidelity())


def test_other_regions_than_stored_are_refused(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    store = TargetStore.open(write(tmp_path, small_store_plan(plan, QUANTIZED)))
    moved = type(plan)(
        manifest=plan.manifest,
        strides=plan.strides,
        views=plan.views,
        regions=type(plan.regions)(overlap="diou", lower_fraction=0.25),
    )
    keys = sample_keys(store, fidelity())
    with pytest.raises(CacheError, match="the regions of stored views differ"):
        measure_fidelity(store, moved, small_teacher(plan.manifest), fidelity(), keys)


def test_a_student_of_another_geometry_or_dataset_is_refused_with_both_values(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    store = TargetStore.open(write(tmp_path, small_store_plan(plan, QUANTIZED)))
    require_fit(store.fingerprint, DETECTOR, plan.manifest)
    wrong = type(DETECTOR)(**{**DETECTOR.to_json(), "dcn_stages": (), "reg_max": 7})
    with pytest.raises(CacheError, match=r"geometry\.bins.*17.*8"):
        require_fit(store.fingerprint, wrong, plan.manifest)
    fewer = type(plan.manifest)(**{**vars_of(plan.manifest), "images": plan.manifest.images[1:]})
    with pytest.raises(CacheError, match="images"):
        require_fit(store.fingerprint, DETECTOR, fewer)


def vars_of(manifest: object) -> dict[str, object]:
    names = ("root", "folder", "annotations_sha256", "categories", "images")
    return {name: getattr(manifest, name) for name in names}
