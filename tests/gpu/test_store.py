"""A store that a GPU wrote, held against the CPU's teacher by the measures of ``verify_cache``."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from msgspec import structs
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.codec.precision import Precision
from pipeline.fidelity.config import BOUNDED, FidelityConfig
from pipeline.fidelity.fidelity import measure_fidelity, require_bounds
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.teacher.extractor import read_batch
from pipeline.teacher.run import write_store

BOUNDS = FidelityConfig(views=10, temperature=10.0, cls_temperature=2.0)
"""The recipes' own."""
FINE = structs.replace(QUANTIZED, edge_step=0.02, cls_step=0.02)
"""A random teacher needs finer steps than a trained one."""
BF16_FACTOR = 10.0
"""By how much a teacher in bfloat16 may exceed them: it keeps 8 bits, a store's steps about as many."""


@pytest.fixture(scope="module")
def view_set(tmp_path_factory: pytest.TempPathFactory) -> ViewSet:
    return small_view_set(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("mode", ["exact", "float32", "bfloat16"], indirect=True)
@pytest.mark.parametrize("stored", [LOSSLESS, FINE], ids=["lossless", "quantized"])
def test_store_is_as_faithful_as_the_recipes_ask(
    stored: Precision,
    precision: str,
    view_set: ViewSet,
    tmp_path: Path,
    device: torch.device,
    record_property: Callable[[str, object], None],
) -> None:
    live, teacher = (small_teacher(view_set.manifest) for _ in range(2))
    config = structs.replace(teacher.config, forward_precision=precision)
    teacher, path = replace(teacher, device=device, config=config), tmp_path / "targets.zarr"
    write_store(small_layout(view_set, stored), view_set, teacher, scratch_root=tmp_path, output=path)
    assert not verify(path)
    store = TargetStore.open(path)
    fidelity = measure_fidelity(store, view_set, live, BOUNDS, store.keys)
    record_property("fidelity", asdict(fidelity))
    factor = BF16_FACTOR if precision == "bfloat16" else 1.0
    bounds = {name: getattr(BOUNDS, name) * factor for name in BOUNDED}
    require_bounds(fidelity, structs.replace(BOUNDS, **bounds))


def test_a_batch_does_not_wait_before_its_outputs_are_read(
    view_set: ViewSet, device: torch.device, no_waits: Callable[[], AbstractContextManager[None]]
) -> None:
    """The next batch need not wait for them."""
    teacher = replace(small_teacher(view_set.manifest), device=device)
    batch = teacher.batches(list(view_set))[0]
    pixels = read_batch(batch, teacher.preprocessing)
    teacher.forward(pixels, batch)
    with no_waits():
        pending = teacher.forward(pixels, batch)
    assert len(pending.read()) == len(batch.views)
