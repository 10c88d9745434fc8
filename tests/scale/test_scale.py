"""The scale scripts in small: what they write is what they say."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from coco_size import evaluate_generated, plan, prepare, write_annotations
from compression import LEVELS, compare_levels
from generated_store import begin, finish, generate_store, write
from large_store import VIEWS_PER_PARTITION, check, open_only, read_at_random
from pixels import measure
from readers import OURS, compare, require_equal
from teacher_cases import QUANTIZED, small_view_set
from training_cases import IMAGES, store_of

from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore

SMALL_SIDE, LARGE_SIDE = 32, 96
DRAWN = 700
COCO_BYTES, COCO_IMAGES = 448e6, 118_287
"""Of ``instances_train2017.json``."""


def test_a_drawn_dataset_is_cocos_and_is_prepared_in_less_memory_than_twice_its_file_takes(
    tmp_path: Path,
) -> None:
    annotations, manifest = tmp_path / "instances.json", tmp_path / "manifest.json"
    boxes = write_annotations(annotations, DRAWN, seed=1)
    size = annotations.stat().st_size
    assert size / DRAWN == pytest.approx(COCO_BYTES / COCO_IMAGES, rel=0.1)
    areas = np.array([row["area"] for row in json.loads(annotations.read_text())["annotations"]])
    assert len(areas) == boxes
    assert boxes / DRAWN == pytest.approx(7.27, abs=0.5)
    assert np.mean(areas < SMALL_SIDE**2) == pytest.approx(0.41, abs=0.03)
    assert np.mean(areas > LARGE_SIDE**2) == pytest.approx(0.24, abs=0.05)
    tracemalloc.start()
    assert prepare(annotations, manifest).endswith("images")
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 2 * size
    assert "1,000 detections" in evaluate_generated(manifest, 10, seed=0)
    write_annotations(annotations, 12, seed=0)
    prepare(annotations, manifest)
    assert "kept points" in plan(manifest, 1)


def test_a_store_of_many_views_is_whole(tmp_path: Path) -> None:
    begin(tmp_path, 1100, 20, VIEWS_PER_PARTITION)
    assert write(tmp_path, 20) == "3 partitions"
    assert "files" in finish(tmp_path, tmp_path / "targets.zarr")
    assert check(tmp_path / "targets.zarr") == "0 problems"
    assert open_only(tmp_path / "targets.zarr") == "1,100 views"
    assert read_at_random(tmp_path / "targets.zarr", 30).startswith("30 views")


def test_a_generated_store_is_as_large_as_asked_for_and_compresses_as_real_ones_do(tmp_path: Path) -> None:
    """COCO-like views: 65 of 900 points in the main region, some tens of bytes a point."""
    store = TargetStore.open(generate_store(tmp_path, 20, 900))
    statistics = store.statistics
    assert len(store.keys) == 20
    assert statistics["points_per_view"] == pytest.approx(900, rel=0.2)
    assert statistics["main_points"] / statistics["points"] == pytest.approx(65 / 900, rel=0.1)
    assert 25 < statistics["bytes_per_point"] < 60
    assert len(list(compare_levels(store.path))) == len(sharded_specs(store.schema)) * len(LEVELS)


def test_every_reader_reads_what_zarr_reads_and_has_a_row(tmp_path: Path) -> None:
    """Two partitions, the second a small one; the comparison refuses other values."""
    (copies := tmp_path / "copies").mkdir()
    table = compare(generate_store(tmp_path, 70, 40), 30, 1, copies)
    rows = [line.split("|")[1:-1] for line in table.splitlines()[2:]]
    names = {row[0].strip() for row in rows}
    assert {OURS, "zarr", "one .npz a view", "one .pt a view", "memory map, uncompressed"} <= names
    assert all(float(row[3]) > 0 for row in rows)
    with pytest.raises(ValueError, match="wrong: expected a as plain zarr reads it"):
        require_equal("wrong", {"a": np.ones(2)}, {"a": np.zeros(2)})


def test_checksums_are_measured(tmp_path: Path) -> None:
    store = store_of(tmp_path, QUANTIZED)
    manifest = small_view_set(tmp_path, IMAGES).manifest
    images = [manifest.image_path(record) for record in manifest.images]
    assert "of decoding" in measure(images[:2], store.path, (64, 64))
