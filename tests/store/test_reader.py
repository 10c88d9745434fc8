import math
import pickle
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from store_cases import (
    LOSSLESS,
    QUANTIZED,
    StoreCase,
    flip_bit,
    make_store_case,
    store_case_of,
    values_of,
    write_all,
    write_store,
)
from torch.utils.data import DataLoader

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.writer import STORE_FOLDER
from pipeline.views.types import ViewKey


@pytest.fixture(params=[QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def store_case(request: pytest.FixtureRequest) -> StoreCase:
    return make_store_case(request.param)


@pytest.fixture
def store(store_case: StoreCase, tmp_path: Path) -> TargetStore:
    return TargetStore.open(write_store(tmp_path, store_case))


def test_a_view_comes_back_as_it_was_written(store_case: StoreCase, store: TargetStore) -> None:
    """Exactly if lossless, else within half a step, of weights and in each coefficient and class logit."""
    for expected, targets in zip(store_case.views, store_case.targets, strict=True):
        view, read = store[expected.key], store.view(expected.key)
        assert (read.key, read.geometry) == (expected.key, expected.geometry)
        np.testing.assert_array_equal(view.boxes, expected.boxes_xyxy, strict=True)
        np.testing.assert_array_equal(view.labels, expected.labels, strict=True)
        for name in ("level", "position", "main_gt"):
            np.testing.assert_array_equal(getattr(read.points, name), getattr(expected.points, name))
        weight, exact = view.valuable_weight, expected.points.valuable_weight
        np.testing.assert_array_equal(weight > 0, exact > 0)
        assert (abs(weight - exact) <= store.schema.weight_code.max_error(exact)).all()
        steps, edges = view.stored.edge_steps, targets.edge_logits
        if steps is None:
            np.testing.assert_array_equal(view.edge_logits, edges, strict=True)
            np.testing.assert_array_equal(view.cls_logits, targets.cls_logits, strict=True)
            continue
        # 5 bins have 4 coefficients, and a constant per edge is free.
        error = view.edge_logits - (edges - edges.mean(axis=-1, keepdims=True))
        assert (np.linalg.norm(error, axis=-1) <= steps[:, None] / 2 * 2 + 1e-5).all()
        assert (np.abs(view.cls_logits - targets.cls_logits) <= 0.05 / 2 + 1e-5).all()


def decode_by_the_description(formula: str, region: Any, edge_codes: Any, cls_codes: Any, bins: int) -> Any:
    """Weights, edge and class logits of a view as the attribute ``quantizer`` words them."""
    rows = [int(row[3]) for row in region]
    if "read as an integer" in formula:
        weights = [struct.unpack("<f", struct.pack("<i", code))[0] for code in rows]
    else:
        assert "valuable_weight = 0 where weight_code = 0, else 2**(-(weight_code - 1) / 128)." in formula
        weights = [2 ** (-(code - 1) / 128) if code else 0.0 for code in rows]
    if "float32 logits as they are" in formula:
        return weights, edge_codes.reshape(-1, 4, bins), cls_codes
    (cls_step,) = re.findall(r"cls_logit = cls_code \* ([0-9.]+)\. ", formula)
    ((step, largest),) = re.findall(r"step = ([0-9.]+) where .* but at most (\d+)\.", formula)
    assert "sqrt(2/bins) * cos(pi*j*(2*i+1)/(2*bins))" in formula
    assert "k = floor(1.5 + (weight_code - 1) / 128)" in formula
    k = [0 if row[2] >= 0 else min(math.floor(1.5 + (row[3] - 1) / 128), int(largest)) for row in region]
    steps, j, i = float(step) * 2 ** (np.array(k) / 2), np.arange(1, bins)[:, None], np.arange(bins)
    cosines = math.sqrt(2 / bins) * np.cos(math.pi * j * (2 * i + 1) / (2 * bins))
    edges = (edge_codes.reshape(-1, 4, bins - 1) - 128.0) * steps[:, None, None] @ cosines
    return weights, edges, cls_codes * float(cls_step)


@pytest.mark.parametrize("cap", [1.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize("edge_step", [0.03, 0.4, None])
def test_a_decoder_written_from_the_description_alone_equals_the_reader(
    tmp_path: Path, edge_step: float | None, cap: float
) -> None:
    precision = Precision(edge_step=edge_step, max_step_factor=cap, cls_step=edge_step and 0.05)
    store_case = make_store_case(precision)
    store = TargetStore.open(write_store(tmp_path, store_case))
    root = zarr.open_group(store.path, mode="r")
    arrays = {path: np.asarray(array) for path, array in root.members(max_depth=None) if "/" in path}
    for row, expected_view in enumerate(store_case.views):
        point, points, main, mains, _, _ = arrays["views/extent"][row]
        weights, edges, classes = decode_by_the_description(
            str(root.attrs["quantizer"]),
            arrays["points/region"][point : point + points],
            arrays["points/edge_codes"][point : point + points],
            arrays["main/cls_codes"][main : main + mains],
            bins=5,
        )
        view = store.read(expected_view.key)
        np.testing.assert_array_equal(view.view.points.valuable_weight, np.float32(weights))
        np.testing.assert_allclose(view.edge_logits(), edges, atol=2e-5)
        np.testing.assert_allclose(view.cls_logits(), classes, atol=1e-6)


def test_keys_and_views_of_images_with_gaps(store_case: StoreCase, store: TargetStore) -> None:
    assert store.keys == tuple(view.key for view in store_case.views)
    assert (len(store.keys), store.views(17), store.views(11)) == (14, (0, 1), ())


@pytest.mark.parametrize("key", [(17, 2), (11, 0), (0, 0), (10**6, 0)])
def test_a_view_that_is_not_stored_is_refused(store: TargetStore, key: tuple[int, int]) -> None:
    with pytest.raises(CacheError, match=f"image_id={key[0]} in .*, but got view={key[1]}"):
        store.read(ViewKey(*key))


def test_a_store_of_no_views_at_all(tmp_path: Path) -> None:
    store = TargetStore.open(write_store(tmp_path, store_case_of([])))
    assert (store.keys, store.views(1)) == ((), ())


def test_a_pickled_store_is_its_path_and_reads_the_same(store: TargetStore) -> None:
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    for key in store.keys:
        assert values_of(again.read(key)) == values_of(store.read(key))


def test_open_says_what_is_wrong_with_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    zarr.create_group(tmp_path / "foreign")
    write_all(tmp_path, make_store_case(), range(4))
    expected = {
        **dict.fromkeys(("missing", "file", "empty"), r"it has no zarr\.json; fetch it with `dvc pull`"),
        "foreign": "not of a store of teacher outputs",
        STORE_FOLDER: "never finished",
    }
    for name, message in expected.items():
        with pytest.raises(CacheError, match=message):
            TargetStore.open(tmp_path / name)


def open_files() -> set[str]:
    """Where the process's descriptors point to, but for the one that lists them."""
    links = Path("/proc/self/fd").iterdir()
    return {f"{link.name} {link.readlink()}" for link in links if link.exists()}


def test_loader_workers_read_what_the_parent_reads(tmp_path: Path) -> None:
    """Forked ones; those that are started otherwise get a pickled store."""
    store = TargetStore.open(write_store(tmp_path, make_store_case()))
    here = [store.read(key) for key in store.keys]
    loader = DataLoader(
        store.keys,  # type: ignore[arg-type]
        batch_size=3,
        num_workers=2,
        collate_fn=lambda keys: [store.read(key) for key in keys],
        multiprocessing_context="fork",
    )
    for left, right in zip(here, (view for batch in loader for view in batch), strict=True):
        assert values_of(left) == values_of(right)
    for left, key in zip(here, store.keys, strict=True):
        assert values_of(left) == values_of(store.read(key))


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
                assert values_of(view) == values_of(alone.read(key))
