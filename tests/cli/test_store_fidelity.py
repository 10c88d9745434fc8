"""The curve is measured with the store's own code: bytes and errors are those of a store that is written."""

from pathlib import Path

import pytest
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.cli.store_fidelity import CurvePoint, Sample, curve_precisions, measure_curve
from pipeline.codec.precision import Precision
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import measure_fidelity
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer import writer

SETTINGS = FidelityConfig(temperature=10.0, cls_temperature=2.0, seed=0)


def sample(folder: Path) -> Sample:
    view_set = small_view_set(folder)
    views = list(view_set)
    targets = list(small_teacher(view_set.manifest).run(views))
    return Sample(views=views, targets=targets, strides=view_set.strides, student=None)


def curve(folder: Path, precisions: list[Precision]) -> list[CurvePoint]:
    return list(measure_curve(sample(folder), precisions, SETTINGS))


def test_a_coarser_step_takes_fewer_bytes_and_errs_more_and_lossless_not_at_all(tmp_path: Path) -> None:
    lossless, *points = curve(tmp_path, curve_precisions(QUANTIZED))
    assert lossless.edges.gradient_error == pytest.approx(0, abs=1e-6)
    assert lossless.classes.gradient_error == 0
    sizes = [point.bytes_per_view for point in points]
    assert sizes == sorted(sizes, reverse=True)
    errors = [point.edges.gradient_error for point in points]
    assert errors == sorted(errors)
    assert 0 < errors[0] < 0.02 < errors[-1]


def test_the_configured_precision_is_part_of_the_curve() -> None:
    odd = Precision(edge_step=0.037, max_step_factor=2.0, cls_step=0.0111)
    assert odd in curve_precisions(odd)
    assert all(precision.max_step_factor == 2.0 for precision in curve_precisions(odd)[1:])
    assert len(curve_precisions(LOSSLESS)) == len(curve_precisions(QUANTIZED))


def test_figures_are_those_of_a_real_store(tmp_path: Path) -> None:
    """Bytes of the shards, and the errors that ``verify_cache`` measures, of a store of one partition."""
    view_set, given = small_view_set(tmp_path), sample(tmp_path)
    layout = small_layout(view_set, QUANTIZED, views_per_partition=len(given.views))
    writer.init(tmp_path / "scratch", layout.schema, layout.table)
    record = writer.write_partition(tmp_path / "scratch", 0, list(view_set), given.targets)
    writer.finalise(tmp_path / "scratch", tmp_path / "targets.zarr")
    (point,) = curve(tmp_path, [QUANTIZED])
    assert point.bytes_per_view == sum(shard.size for shard in record.shards.values()) / len(given.views)
    store = TargetStore.open(tmp_path / "targets.zarr")
    bounds = {"max_kl": 1.0, "max_loss_error": 1.0, "max_gradient_error": 1.0}
    config = FidelityConfig(views=100, seed=0, temperature=10.0, cls_temperature=2.0, **bounds)
    live = measure_fidelity(store, view_set, small_teacher(view_set.manifest), config, list(store.keys))
    assert live.gradient_error == pytest.approx(point.edges.gradient_error, rel=1e-3)
    assert live.kd_gradient_error == pytest.approx(point.classes.gradient_error, rel=1e-3)
    assert live.loss_error == pytest.approx(point.edges.loss_error, rel=1e-2)
