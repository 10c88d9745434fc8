"""One store, read from worker processes and from threads, after the parent has read from it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_cases import assert_same_view, flip_bit, make_store_case, write_store
from torch.utils.data import DataLoader, Dataset

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
        assert_same_view(left, right)
    for left, key in zip(here, store.keys, strict=True):
        assert_same_view(left, store.read(key))


def test_nothing_stays_open_after_reading_nor_after_damage(tmp_path: Path) -> None:
    path = write_store(tmp_path, make_store_case())
    before = open_files()
    store = TargetStore.open(path)
    for key in store.keys:
        store.read(key)
    flip_bit(path / "points/edge_codes/c/0/0", 30)
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
                assert_same_view(view, alone.read(key))
