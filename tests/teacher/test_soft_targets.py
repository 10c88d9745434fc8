"""The teacher on views: what a batch, threads and processes change, which is nothing."""

from collections import Counter
from contextlib import closing, nullcontext
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pretended_device import DEVICE, pinned, pretended_device
from teacher_cases import small_teacher, small_view_set

from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import PipelineError
from pipeline.detector.config import NetworkPrecision
from pipeline.regions.view_set import ViewSet
from pipeline.teacher import extractor
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts, read_batch
from pipeline.views import images
from pipeline.views.geometry import PerEpochViewsConfig
from pipeline.views.types import KeptPoints


@pytest.fixture
def view_set(tmp_path: Path) -> ViewSet:
    return small_view_set(tmp_path)


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.2), ("float16", 0.03)])
def test_a_lower_precision_says_nearly_the_same_and_is_handed_over_in_float32(
    view_set: ViewSet, precision: NetworkPrecision, most: float
) -> None:
    """Logits here have a spread of 1 to 2; 8 and 11 bits of mantissa differ in the third and fourth digit."""
    low = small_teacher(view_set.manifest, forward_precision=precision).run(list(view_set))
    differences = []
    for lower, exact in zip(low, small_teacher(view_set.manifest).run(list(view_set)), strict=True):
        assert lower.edge_logits.dtype == lower.cls_logits.dtype == np.float32
        differences.append(np.abs(lower.edge_logits - exact.edge_logits).max(initial=0))
    assert 0 < max(differences) < most


def test_running_a_teacher_leaves_the_callers_threads_alone(view_set: ViewSet) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(small_teacher(view_set.manifest).run(list(view_set)[:2]))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


SMALL, COCO = 32 * 96 * 96, 8 * 1333 * 800


@pytest.mark.parametrize(
    ("device", "cores", "pixels", "expected"),
    [
        ("cuda", 1, COCO, (1, 1, True)),
        ("cuda", 64, COCO, (8, 1, True)),
        ("cpu", 1, SMALL, (1, 1, False)),
        ("cpu", 64, SMALL, (8, 64, False)),
        ("cpu", 64, COCO, (1, 3, False)),  # 7 GB
        ("cpu", 64, 100 * COCO, (1, 1, False)),
    ],
)
def test_one_thread_drives_a_gpu_and_one_a_core_the_cpu(
    device: str, cores: int, pixels: int, expected: tuple[int, int, bool]
) -> None:
    assert ThreadCounts.of(torch.device(device), cores, pixels) == expected


def test_batches_are_as_few_as_padded_sizes_allow_and_outputs_keep_their_order(view_set: ViewSet) -> None:
    """Also where a view has no points."""
    drawn = PerEpochViewsConfig(epochs=3, long_edge=96, short_edges=(32, 96), flip_probability=0.5, seed=0)
    views = list(replace(view_set, views=drawn))
    points = views[1].points
    none = KeptPoints(**{field.name: getattr(points, field.name)[:0] for field in fields(points)})
    views[1] = replace(views[1], points=none)
    teacher = small_teacher(view_set.manifest)
    batches = teacher.batches(views)
    assert sorted(place for batch in batches for place in batch.places) == list(range(len(views)))
    for batch in batches:
        assert batch.views == [views[place] for place in sorted(batch.places)]
        assert len({view.geometry.padded_hw for view in batch.views}) == 1
    sizes = Counter(view.geometry.padded_hw for view in views)
    assert len(sizes) > 1
    assert len(batches) == sum(-(-count // 3) for count in sizes.values())
    for view, soft in zip(views, teacher.run(views), strict=True):
        (alone,) = teacher.run([view])
        assert soft.edge_logits.shape == (len(view.points), 4, 17)
        assert soft.cls_logits.shape == (view.points.main_count, 4)
        np.testing.assert_allclose(soft.edge_logits, alone.edge_logits, rtol=1e-4, atol=1e-5)


def test_decoding_in_processes_changes_no_output_and_a_killed_process_is_said(view_set: ViewSet) -> None:
    teacher, views = small_teacher(view_set.manifest), list(view_set)
    counts = ThreadCounts(decoders=2, forwards=1, in_processes=True)
    with closing(teacher.threads(counts)) as threads:
        for soft, expected in zip(teacher.compute(threads, views)[0], teacher.run(views), strict=True):
            np.testing.assert_array_equal(soft.edge_logits, expected.edge_logits)
        for process in threads._loaders._processes.values():
            process.kill()
        with pytest.raises(PipelineError, match="a decoding process was killed"):
            teacher.compute(threads, views)


@pytest.mark.parametrize("dense", [None, DensePrecision(), DensePrecision(floor=0)])
def test_the_host_waits_for_no_batch_before_its_outputs_are_read(
    view_set: ViewSet, monkeypatch: pytest.MonkeyPatch, dense: DensePrecision | None
) -> None:
    teacher = small_teacher(view_set.manifest, dense=dense)
    batch = teacher.batches(list(view_set))[0]
    pixels, (expected, *_) = read_batch(batch, teacher.preprocessing), teacher.run(list(view_set))
    monkeypatch.setattr(extractor, "autocast", lambda *_: nullcontext())
    monkeypatch.setattr(
        LogitExtractor, "_send", lambda _self, tensor: pinned(tensor).to(DEVICE, non_blocking=True)
    )
    images._mean_std.cache_clear()
    with pretended_device() as waits:
        on_device = replace(teacher, device=DEVICE)
        on_device.forward(pixels, batch)  # the first copies constants, once for all
        waits.clear()
        pending = on_device.forward(pixels, batch)
    assert not waits
    found = pending.read()[0]
    np.testing.assert_allclose(found.edge_logits, expected.edge_logits, rtol=1e-4, atol=1e-5)
    if found.dense and expected.dense:
        np.testing.assert_allclose(found.dense.distances, expected.dense.distances, rtol=1e-4, atol=1)
