"""A store in facts: from its attributes alone, and also if the rest of it is damaged."""

import json
from pathlib import Path

import pytest
from store_cases import LOSSLESS, content_of, flip_bit, make_plan, write_store

from pipeline.core.errors import CacheError
from pipeline.store.format.schema import FORMAT_VERSION
from pipeline.store.reader.reader import TargetStore
from pipeline.store.tools.summary import METADATA, summarize


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path, make_plan())


def test_counts_are_those_of_the_views(path: Path) -> None:
    store, summary = TargetStore.open(path), summarize(path)
    views = [store.view(key) for key in store.keys]
    assert (summary.format_version, summary.partitions) == (FORMAT_VERSION, 4)
    assert (summary.views, summary.boxes) == (len(views), sum(len(view.labels) for view in views))
    assert summary.images == len({view.key.image_id for view in views})
    points = summary.points
    assert points.total == sum(len(view.points) for view in views)
    assert points.main == sum(view.points.main_count for view in views)
    assert points.valuable == sum(int((view.points.valuable_weight > 0).sum()) for view in views)
    assert points.main_per_view == points.main / len(views)


def test_bytes_of_all_arrays_are_those_on_the_disk(path: Path) -> None:
    files, summary = content_of(path), summarize(path)
    on_disk = {name: len(content) for name, content in files.items() if name != "zarr.json"}
    assert sum(summary.bytes.arrays.values()) == summary.bytes.total == sum(on_disk.values())
    assert summary.bytes.arrays[METADATA] == sum(
        size for name, size in on_disk.items() if name.endswith("zarr.json")
    )
    region = [size for name, size in on_disk.items() if name.startswith("points/region/c/")]
    assert summary.bytes.arrays["points/region"] == sum(region)


@pytest.mark.parametrize("harm", [Path.unlink, lambda file: flip_bit(file, 30)], ids=["removed", "changed"])
def test_a_damaged_store_is_described_as_far_as_it_goes(path: Path, harm: object) -> None:
    harm(path / "views/image_id/c/0")  # type: ignore[operator]
    (path / "points/region/c/1/0").write_bytes(b"")
    summary = summarize(path)
    assert summary.images is None
    assert "points/region/c/1/0" in summary.wrong_sizes
    assert summary.views == 14


def test_a_whole_store_has_no_file_of_a_wrong_size(path: Path) -> None:
    assert summarize(path).wrong_sizes == {}


@pytest.mark.parametrize("precision", [None, LOSSLESS], ids=["quantized", "lossless"])
def test_a_summary_is_one_json_document(tmp_path: Path, precision: object) -> None:
    plan = make_plan(*([precision] if precision else []))  # type: ignore[arg-type]
    summary = summarize(write_store(tmp_path, plan))
    document = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert document["fingerprint"] == plan.schema.fingerprint
    assert document["precision"] == plan.schema.precision.to_json()
    assert document["quantizer"] == plan.schema.formula
    assert set(document["clipped"]) == {"edge", "cls"}


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="expected a store"):
        summarize(tmp_path)
