"""One store, read from worker processes and from threads, after the parent has read from it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from store_cases import LOSSLESS, QUANTIZED, flip_bit, make_store_case, write_store
from torch.utils.data import DataLoader, Dataset

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.types import ViewKey


@dataclass(frozen=True, kw_only=True)
class StoredViews(Dataset[StoredView]):
    store: TargetStore
    keys: Sequence[ViewKey]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> StoredView:
        return self.store.read(self.keys[index])


def assert_same(left: StoredView, right: StoredView) -> None:
    """Every value of a view."""
    assert (left.view.key, left.view.geometry) == (right.view.key, right.view.geometry)
    assert left.cls_step == right.cls_step
    for name in ("edge_codes", "edge_steps", "cls_codes"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    for name in ("boxes_xyxy", "labels"):
        np.testing.assert_array_equal(getattr(left.view, name), getattr(right.view, name))
    for name in ("level", "position", "main_gt", "valuable_weight"):
        np.testing.assert_array_equal(getattr(left.view.points, name), getattr(right.view.points, name))


def open_files() -> set[str]:
    """Where the process's descriptors point to, but for the one that lists them."""
    links = Path("/proc/self/fd").iterdir()
    return {f"{link.name} {link.readlink()}" for link in links if link.exists()}


@pytest.mark.parametrize(
    "start", ["fork", *(pytest.param(start, marks=pytest.mark.slow) for start in ("spawn", "forkserver"))]
)
def test_loader_workers_read_what_the_parent_reads(tmp_path: Path, start: str) -> None:
    store = TargetStore.open(write_store(tmp_path, make_store_case()))
    here = [store.read(key) for key in store.keys]
    loader = DataLoader(
        StoredViews(store=store, keys=store.keys),
        batch_size=3,
        num_workers=2,
        collate_fn=list,
        multiprocessing_context=start,
    )
    there = [view for batch in loader for view in batch]
    for left, right in zip(here, there, strict=True):
        assert_same(left, right)
    for left, key in zip(here, store.keys, strict=True):
        assert_same(left, store.read(key))


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def test_nothing_stays_open_after_opening_and_reading(tmp_path: Path, precision: Precision) -> None:
    path = write_store(tmp_path, make_store_case(precision))
    before = open_files()
    store = TargetStore.open(path)
    for key in store.keys:
        store.read(key)
        store.view(key)
    assert open_files() == before


def test_nothing_stays_open_after_a_damaged_shard_was_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path, make_store_case())
    store = TargetStore.open(path)
    flip_bit(path / "points/edge_codes/c/0/0", 30)
    before = open_files()
    with pytest.raises(CacheError, match="checksum"):
        store.read(store.keys[0])
    assert open_files() == before


def test_threads_read_from_one_store_at_the_same_time(tmp_path: Path) -> None:
    """None of them has read before, so that they meet at the shard's index, too."""
    path = write_store(tmp_path, make_store_case())
    alone = TargetStore.open(path)
    keys = alone.keys * 20
    for _ in range(5):
        shared = TargetStore.open(path)
        with ThreadPoolExecutor(8) as pool:
            for key, view in zip(keys, pool.map(shared.read, keys), strict=True):
                assert_same(view, alone.read(key))
