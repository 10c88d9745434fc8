"""Caching: the store holds what the teacher says, survives a kill, and refuses what does not fit."""

import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from store_cases import content_of, make_view
from teacher_cases import DETECTOR, LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.codec.precision import LogarithmicWeights
from pipeline.core.errors import CacheError
from pipeline.core.files import digest, write_atomically
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import (
    check_regions,
    find_precision,
    measure_fidelity,
    require_bounds,
    sample_keys,
)
from pipeline.regions.config import RegionsConfig
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer import writer
from pipeline.student.source import require_fit
from pipeline.teacher import run
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.partitions import PartitionWriter, write_here
from pipeline.teacher.run import (
    StoreLayout,
    fill_store,
    require_disk,
    scratch_folder,
    write_store,
)
from pipeline.teacher.times import StoreTimes
from pipeline.views.types import ViewKey


class KilledError(Exception):
    """Stands for a process that dies."""


def write(folder: Path, layout: StoreLayout, die_after: int | None = None) -> Path:
    """Write the small store; optionally die after some partitions."""
    view_set = small_view_set(folder)

    def progress(items: Iterable[StoreTimes], _total: int, _label: str) -> Iterable[StoreTimes]:
        for number, item in enumerate(items, start=1):
            if number == die_after:
                raise KilledError
            yield item

    output = folder / "targets.zarr"
    write_store(
        layout,
        view_set,
        small_teacher(view_set.manifest),
        scratch_root=folder,
        output=output,
        progress=progress,
    )
    return output


def test_a_lossless_store_holds_the_teachers_words(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    store = TargetStore.open(write(tmp_path, small_layout(view_set, LOSSLESS)))
    live = small_teacher(view_set.manifest).run(list(view_set))
    assert len(store) == 2 * len(view_set.manifest.images)
    for view, soft in zip(view_set, live, strict=True):
        stored = store.read(view.key)
        np.testing.assert_allclose(stored.edge_logits(), soft.edge_logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(stored.cls_logits(), soft.cls_logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(stored.view.boxes_xyxy, view.boxes_xyxy)
        np.testing.assert_array_equal(stored.view.points.main_gt, view.points.main_gt)


def test_only_what_is_missing_is_written_and_nothing_if_nothing_is(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    layout = small_layout(view_set, QUANTIZED)
    asked: list[int] = []

    def engine(scratch: Path, partitions: Sequence[int]) -> Generator[StoreTimes, None, None]:
        asked.extend(partitions)
        yield from write_here(view_set, lambda: small_teacher(view_set.manifest), 1, scratch, partitions)

    def fill(output: str) -> StoreTimes:
        return fill_store(
            layout,
            engine,
            scratch_root=tmp_path,
            output=tmp_path / output,
        )

    scratch = tmp_path / digest(layout.schema.fingerprint)[:16]
    writer.init(scratch, layout.schema, layout.table)
    list(write_here(view_set, lambda: small_teacher(view_set.manifest), 1, scratch, [1]))
    assert fill("a.zarr").views == len(view_set.keys()) - layout.schema.views_per_partition
    assert asked == [0, 2]
    writer.init(scratch, layout.schema, layout.table)
    list(
        write_here(
            view_set, lambda: small_teacher(view_set.manifest), 1, scratch, range(layout.schema.partitions)
        )
    )
    assert fill("b.zarr").views == 0
    assert asked == [0, 2]
    assert content_of(tmp_path / "a.zarr") == content_of(tmp_path / "b.zarr")


def test_a_partition_that_somebody_finished_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """Two workers may have the same partition: one of them was thought to be dead."""
    view_set = small_view_set(tmp_path)
    layout = small_layout(view_set, QUANTIZED)
    writer.init(tmp_path / "scratch", layout.schema, layout.table)
    teacher = small_teacher(view_set.manifest)
    with closing(PartitionWriter(tmp_path / "scratch", view_set, teacher, cores=1, name="w")) as partitions:
        first = partitions.write(0)
        (record,) = (tmp_path / "scratch/partitions").iterdir()
        written = record.stat().st_mtime_ns
        second = partitions.write(0)
    assert first.busy.write > 0
    assert second.busy.write == 0
    assert record.stat().st_mtime_ns == written


@pytest.mark.parametrize("cores", [2, 4])
def test_a_store_does_not_depend_on_the_number_of_cores(tmp_path: Path, cores: int) -> None:
    stores = []
    for number in (1, cores):
        view_set = small_view_set(tmp_path / str(number))
        fill_store(
            small_layout(view_set, LOSSLESS),
            partial(write_here, view_set, partial(small_teacher, view_set.manifest), number),
            scratch_root=tmp_path / str(number),
            output=tmp_path / f"{number}.zarr",
        )
        stores.append(content_of(tmp_path / f"{number}.zarr"))
    assert stores[0] == stores[1]


def test_a_store_is_planned_to_the_row_before_the_teacher_runs(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    layout = small_layout(view_set, QUANTIZED)
    assert layout.table.counts[:, 0].tolist() == [len(view.points) for view in view_set]
    store = TargetStore.open(write(tmp_path, layout))
    assert store.statistics["points"] == layout.table.counts[:, 0].sum()


def test_a_store_that_cannot_fit_is_refused_before_the_teacher_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = small_layout(small_view_set(tmp_path), QUANTIZED)
    require_disk(layout, tmp_path)
    usage = type("Usage", (), {"free": estimate_bytes(layout.schema, layout.table) - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match=r"expected room for about \S+ KB, but \S+ KB are free"):
        require_disk(layout, tmp_path)


def test_what_a_killed_run_left_needs_no_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = small_layout(small_view_set(tmp_path), QUANTIZED)
    begun = scratch_folder(layout, tmp_path) / "store.zarr/points"
    begun.mkdir(parents=True)
    (begun / "shard").write_bytes(bytes(100))
    usage = type("Usage", (), {"free": estimate_bytes(layout.schema, layout.table) - 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    require_disk(layout, tmp_path)


def fidelity(**changes: float) -> FidelityConfig:
    values = {"views": 4, "seed": 0, "temperature": 10.0, "cls_temperature": 2.0}
    bounds = {"max_kl": 1e-4, "max_loss_error": 0.02, "max_gradient_error": 0.1}
    return FidelityConfig(**(values | bounds | changes))  # type: ignore[arg-type]


def test_the_live_teacher_agrees_with_its_store_and_another_teacher_does_not(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    store = TargetStore.open(write(tmp_path, small_layout(view_set, QUANTIZED)))
    keys = sample_keys(store.keys, 4, seed=0)
    same = measure_fidelity(store, view_set, small_teacher(view_set.manifest), fidelity(), keys)
    require_bounds(same, fidelity())
    assert same.equal_regions
    assert 0 < same.gradient_error < 0.1
    other = measure_fidelity(store, view_set, small_teacher(view_set.manifest, seed=1), fidelity(), keys)
    with pytest.raises(CacheError, match=r"fidelity: expected kl_mean of at most .* by other code or by"):
        require_bounds(other, fidelity())


def test_a_precision_that_is_too_coarse_is_answered_by_one_that_passes(tmp_path: Path) -> None:
    view_set, bounds = small_view_set(tmp_path), fidelity(max_gradient_error=0.02, max_kl=1.0)
    keys, teacher = list(view_set.keys()), small_teacher(view_set.manifest)
    coarse = TargetStore.open(write(tmp_path / "coarse", small_layout(view_set, QUANTIZED)))
    with pytest.raises(CacheError, match=r"gradient_error of at most 0.02, but got .* choose finer steps"):
        require_bounds(measure_fidelity(coarse, view_set, teacher, bounds, keys), bounds)
    views = [view_set.view(key) for key in keys]
    finer = find_precision(coarse.schema, views, list(teacher.run(views)), bounds)
    assert finer
    store = TargetStore.open(write(tmp_path / "finer", small_layout(view_set, finer)))
    require_bounds(measure_fidelity(store, view_set, teacher, bounds, keys), bounds)


def test_a_weight_further_off_than_its_code_allows_is_named_with_field_view_and_values() -> None:
    view = make_view(ViewKey(7, 1), points=4, boxes=0)
    weight = view.points.valuable_weight
    code = LogarithmicWeights()
    near = replace(view.points, valuable_weight=weight * np.float32(1.0026))
    check_regions(view, replace(view, points=near), code, Path("s"))
    far = weight.copy()
    far[2] *= np.float32(1.01)
    message = (
        rf"valuable_weight of image_id=7, view=1: row 2 is {far[2]:g} in the store, but {weight[2]:g} now"
    )
    with pytest.raises(CacheError, match=message):
        check_regions(view, replace(view, points=replace(view.points, valuable_weight=far)), code, Path("s"))


def test_other_regions_than_stored_are_refused(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    store = TargetStore.open(write(tmp_path, small_layout(view_set, QUANTIZED)))
    moved = replace(view_set, regions=RegionsConfig(vlr="paper"))
    keys = sample_keys(store.keys, 4, seed=0)
    with pytest.raises(
        CacheError, match=r"regions of stored views differ .*: level of image_id=\d+, view=\d: \d+ rows in"
    ):
        measure_fidelity(store, moved, small_teacher(view_set.manifest), fidelity(), keys)


def test_a_student_of_another_geometry_or_dataset_is_refused_with_both_values(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    store = TargetStore.open(write(tmp_path, small_layout(view_set, QUANTIZED)))
    require_fit(store.fingerprint, DETECTOR, view_set.manifest)
    for changes, message in (
        ({"reg_max": 7}, r"geometry\.bins is 17 in the store, but 8 is needed"),
        ({"levels": 4}, r"geometry\.strides is \[8,16,32\] in the store, but \[8,16,32,64\]"),
    ):
        wrong = type(DETECTOR)(**{**DETECTOR.to_json(), "dcn_stages": (), **changes})
        with pytest.raises(CacheError, match=message):
            require_fit(store.fingerprint, wrong, view_set.manifest)
    fewer = replace(view_set.manifest, images=view_set.manifest.images[1:])
    with pytest.raises(CacheError, match="boxes"):
        require_fit(store.fingerprint, DETECTOR, fewer)


def test_a_store_is_finished_by_the_code_that_began_it_or_as_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = small_layout(small_view_set(tmp_path), QUANTIZED)
    with pytest.raises(KilledError):
        write(tmp_path, layout, die_after=2)
    real = run.made_by(run.FOLDERS)
    edited = {**real, "code": {**real["code"], "pipeline/views/images.py": "0" * 64}}
    with monkeypatch.context() as patched:
        patched.setattr(run, "made_by", lambda _: edited)
        with pytest.raises(CacheError, match=r"other code began: code\.pipeline/views/images\.py was"):
            write(tmp_path, layout)
        patched.setenv("LDP_RESUME", "changed-code")
        write(tmp_path, layout)


def test_a_worker_that_wakes_up_late_leaves_no_scratch_folder(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    layout = small_layout(view_set, QUANTIZED)
    scratch = tmp_path / "scratch"
    writer.init(scratch, layout.schema, layout.table)
    teacher = small_teacher(view_set.manifest)
    with closing(PartitionWriter(scratch, view_set, teacher, cores=1, name="late")) as late:
        rows = writer.write_partition
        shutil.rmtree(scratch)
        with pytest.raises(CacheError):
            rows(scratch, 0, None)  # type: ignore[arg-type]
        with pytest.raises(CacheError):
            late.write(0)
    with pytest.raises(CacheError, match="is gone: another run has finished with it"):
        write_atomically(scratch / "store.zarr/points/c/0", b"x", inside=scratch / "store.zarr")
    assert not scratch.exists()
