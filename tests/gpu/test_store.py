"""A store that a GPU wrote, held against the CPU's teacher by the measures of ``verify_cache``."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from msgspec import structs
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.codec.precision import Precision
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import measure_fidelity, require_bounds
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.teacher.extractor import read_batch
from pipeline.teacher.run import write_store

BOUNDS = FidelityConfig(
    views=10,
    seed=0,
    temperature=10.0,
    cls_temperature=2.0,
    max_kl=1e-4,
    max_loss_error=0.005,
    max_gradient_error=0.02,
)
"""The recipes' own."""
FINE = structs.replace(QUANTIZED, edge_step=0.02, cls_step=0.02)
"""A random teacher needs finer steps than a trained one."""
BF16_FACTOR = 10.0
"""By how much a teacher in bfloat16 may exceed them: it keeps 8 bits, a store's steps about as many."""

Record = Callable[[str, object], None]
Waits = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture(scope="module")
def view_set(tmp_path_factory: pytest.TempPathFactory) -> ViewSet:
    return small_view_set(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("mode", ["exact", "float32", "bfloat16"])
@pytest.mark.parametrize("precision", [LOSSLESS, FINE], ids=["lossless", "quantized"])
def test_store_is_as_faithful_as_the_recipes_ask(
    precision: Precision,
    mode: str,
    view_set: ViewSet,
    tmp_path: Path,
    device: torch.device,
    request: pytest.FixtureRequest,
    record_property: Record,
) -> None:
    if mode == "exact":
        request.getfixturevalue("exact_float32")
    live = small_teacher(view_set.manifest)
    forward = "bfloat16" if mode == "bfloat16" else "float32"
    teacher = small_teacher(view_set.manifest)
    config = structs.replace(teacher.config, forward_precision=forward)
    teacher = replace(teacher, device=device, config=config)
    path = tmp_path / "targets.zarr"
    write_store(
        small_layout(view_set, precision),
        view_set,
        teacher,
        scratch_root=tmp_path,
        output=path,
    )
    assert not verify(path)
    store = TargetStore.open(path)
    fidelity = measure_fidelity(store, view_set, live, BOUNDS, store.keys)
    record_property("fidelity", asdict(fidelity))
    factor = BF16_FACTOR if mode == "bfloat16" else 1.0
    names = ("max_kl", "max_loss_error", "max_gradient_error")
    bounds = structs.replace(BOUNDS, **{name: getattr(BOUNDS, name) * factor for name in names})
    require_bounds(fidelity, bounds)


def test_waits_of_a_batch_are_few(
    view_set: ViewSet, device: torch.device, waits: Waits, record_property: Record
) -> None:
    """None before the outputs are read, which the next batch need not wait for."""
    teacher = replace(small_teacher(view_set.manifest), device=device)
    batch = teacher.batches(list(view_set))[0]
    pixels = read_batch(batch, teacher.preprocessing)
    teacher.forward(pixels, batch)
    with waits() as lines:
        pending = teacher.forward(pixels, batch)
    record_property("waits", dict(Counter(lines)))
    assert not lines
    assert len(pending.read()) == len(batch.views)
