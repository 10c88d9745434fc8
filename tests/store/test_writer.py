"""A store is the same to the byte however it is written, or what is wrong with its beginning is said."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import to_builtins
from store_cases import (
    LOSSLESS,
    Content,
    content_of,
    flip_bit,
    flip_middle,
    make_store_case,
    make_view,
    store_case_of,
    write_all,
    write_one,
    write_remaining,
    write_store,
    write_views,
)

from pipeline.core.errors import CacheError
from pipeline.core.files import LOCK_FILE, FileDigest
from pipeline.store.format.attributes import read_attributes, write_attributes
from pipeline.store.writer import partition, writer
from pipeline.store.writer.writer import STORE_FOLDER, finalise, finished_partitions, init, record_path
from pipeline.views.types import SoftTargets, ViewKey

CASE = make_store_case()
PLANNED_FILES = ["views/extent/c/0/0", "views/image_id/zarr.json", "points/zarr.json"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The files of a store that was written in one go."""
    return content_of(write_store(tmp_path_factory.mktemp("expected"), CASE))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A store that was begun, without a partition."""
    write_all(tmp_path / "scratch", CASE, [])
    return tmp_path / "scratch"


def write(scratch: Path, indices: Iterable[int]) -> None:
    for index in indices:
        write_one(scratch, CASE, index)


def finish(scratch: Path) -> Content:
    finalise(scratch, scratch.parent / "finished.zarr")
    return content_of(scratch.parent / "finished.zarr")


def test_order_of_partitions_and_repetition_do_not_change_a_byte(scratch: Path, expected: Content) -> None:
    write(scratch, [3, 1, 1, 0, 2, 3])
    assert finish(scratch) == expected


def test_how_many_views_are_quantized_together_changes_no_byte(
    tmp_path: Path, expected: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three and one of the four of a partition."""
    monkeypatch.setattr(partition, "VIEWS_TOGETHER", 3)
    assert content_of(write_store(tmp_path, CASE)) == expected


def test_finished_partitions_are_those_with_a_record_and_whole_files(scratch: Path) -> None:
    write(scratch, range(4))
    record_path(scratch, 1).write_text("{")
    assert finished_partitions(scratch) == {0, 2, 3}, "partition 2 has no points, and so no files"
    shard = scratch / STORE_FOLDER / "points/region/c/3/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    (scratch / STORE_FOLDER / "points/edge_codes/c/0/0").unlink()
    assert finished_partitions(scratch) == {2}


def test_killed_while_a_partition_is_rewritten_leaves_no_record(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    write(scratch, [0])
    monkeypatch.setattr(writer, "encode_shard", fail)
    with pytest.raises(KeyboardInterrupt):
        write(scratch, [0])
    assert finished_partitions(scratch) == set()


def test_records_of_an_earlier_store_do_not_vouch_for_this_one(scratch: Path) -> None:
    write(scratch, range(4))
    (scratch / STORE_FOLDER).rename(scratch / "elsewhere")
    init(scratch, CASE.schema, CASE.table)
    assert finished_partitions(scratch) == set()
    assert not record_path(scratch, 0).exists()


def test_a_store_begun_with_other_metadata_is_finished_with_that_of_now(
    scratch: Path, expected: Content
) -> None:
    """As of another release of zarr: the file is as its writer recorded it, and not as it is written now."""
    write(scratch, [0])
    begun, name = scratch / STORE_FOLDER, "points/region/zarr.json"
    (begun / name).write_bytes((begun / name).read_bytes() + b"\n")
    attributes = read_attributes(begun)
    attributes["files"][name] = to_builtins(FileDigest.of_file(begun / name))
    write_attributes(begun, attributes)
    write_all(scratch, CASE, [1, 2, 3])
    assert finished_partitions(scratch) == {0, 1, 2, 3}
    assert finish(scratch) == expected


@pytest.mark.parametrize("name", PLANNED_FILES)
@pytest.mark.parametrize("change", [flip_middle, Path.unlink], ids=["harmed", "removed"])
def test_a_planned_file_that_came_to_harm_is_not_sealed_but_written_again(
    scratch: Path, expected: Content, name: str, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(scratch, range(4))
    change(scratch / STORE_FOLDER / name)
    with pytest.raises(CacheError, match=f"{name}: the .*; run the stage again"):
        finish(scratch)
    output = scratch.parent / "targets.zarr"
    assert write_remaining(scratch, output, CASE) == {0, 1, 2, 3}
    assert content_of(output) == expected
    assert f"{name} is damaged: written again" in caplog.text


def test_files_that_nobody_planned_do_not_get_into_the_store(scratch: Path, expected: Content) -> None:
    write(scratch, range(4))
    for name in (".DS_Store", "points/region/c/0/0.1f2e.partial", "points/region/c/9"):
        (scratch / STORE_FOLDER / name).write_bytes(b"?")
    assert finish(scratch) == expected


def test_a_run_that_begins_as_another_one_clears_up_does_not_break_that_one(
    scratch: Path, expected: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts its lock into the folder after the other has looked what there is to remove."""
    write(scratch, range(4))
    rmdir = os.rmdir

    def with_a_lock_of_another(path: Any, **options: Any) -> None:
        if Path(path) == scratch:
            (scratch / LOCK_FILE).touch()
        rmdir(path, **options)

    monkeypatch.setattr("os.rmdir", with_a_lock_of_another)
    assert finish(scratch) == expected
    assert [path.name for path in scratch.iterdir()] == [LOCK_FILE]


OTHERS = {
    "quantizer differs": make_store_case(LOSSLESS),
    r"schema\.fingerprint": replace(CASE, schema=replace(CASE.schema, fingerprint={"teacher": "other"})),
    r"schema\.fingerprint.* \(absent\)": replace(CASE, schema=replace(CASE.schema, fingerprint={})),
    "table_sha256": store_case_of([*CASE.views[:-1], make_view(ViewKey(9999, 1), 3, 1)]),
}


@pytest.mark.parametrize("what", OTHERS)
def test_init_refuses_the_beginning_of_another_store(scratch: Path, what: str) -> None:
    with pytest.raises(CacheError, match=f"another store: {what}"):
        init(scratch, OTHERS[what].schema, OTHERS[what].table)


def test_a_beginning_that_is_damaged_or_missing_is_refused_with_what_to_do(scratch: Path) -> None:
    flip_middle(scratch / STORE_FOLDER / "zarr.json")
    with pytest.raises(CacheError, match=f"{scratch} cannot be continued: remove it, and run again"):
        init(scratch, CASE.schema, CASE.table)
    shutil.rmtree(scratch)
    for act in (write, lambda *_: finish(scratch)):
        with pytest.raises(CacheError, match=r"it has no zarr\.json"):
            act(scratch, [0])
    init(scratch, CASE.schema, CASE.table)
    assert finished_partitions(scratch) == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda views: views[:3],
        lambda views: [*views[:3], make_view(ViewKey(9999, 0), 31, 1)],
        lambda views: [*views[:3], make_view(views[3].key, 30, 1)],
        lambda views: [*views[:3], make_view(views[3].key, 31, 2)],
        lambda views: [views[1], views[0], *views[2:]],
    ],
    ids=["too few", "another image", "fewer points", "more boxes", "another order"],
)
def test_views_other_than_planned_are_refused(scratch: Path, change: Callable[..., list[object]]) -> None:
    with pytest.raises(CacheError, match="its 4 views"):
        write_views(scratch, 0, change(CASE.views[:4]), CASE.targets[:4])
    assert finished_partitions(scratch) == set()


@pytest.mark.parametrize("name", ["edge_logits", "cls_logits"])
def test_targets_that_are_not_finite_of_another_shape_or_too_few_are_refused(
    scratch: Path, name: str
) -> None:
    good = {"edge_logits": CASE.targets[3].edge_logits, "cls_logits": CASE.targets[3].cls_logits}
    broken = good[name].copy()
    broken.flat[0] = np.nan
    last = ([SoftTargets(**{**good, name: bad})] for bad in (broken, good[name][:-1]))
    for targets in (*last, []):
        with pytest.raises(ValueError, match=r"expected|shorter"):
            write_views(scratch, 0, CASE.views[:4], [*CASE.targets[:3], *targets])
    assert finished_partitions(scratch) == set()


def test_finalise_finds_missing_and_damaged_partitions_which_alone_are_written_again(
    scratch: Path, expected: Content
) -> None:
    write(scratch, [0, 2])
    with pytest.raises(CacheError, match=r"expected 4 partitions, but 2 are missing or damaged: 1, 3;"):
        finish(scratch)
    assert not (scratch.parent / "finished.zarr").exists()
    write(scratch, [1, 3])
    flip_bit(scratch / STORE_FOLDER / "points/edge_codes/c/1/0", 40)
    with pytest.raises(CacheError, match=r"1 are missing or damaged: 1;"):
        finish(scratch)
    assert finished_partitions(scratch) == {0, 2, 3}
    write(scratch, [1])
    (scratch.parent / "finished.zarr").mkdir()
    (scratch.parent / "finished.zarr/old").touch()
    assert finish(scratch) == expected
    assert not scratch.exists()


def test_statistics_are_those_of_the_views(tmp_path: Path) -> None:
    store_case = make_store_case()
    store_case.targets[0].edge_logits[0, 0, :2] = [1e5, -1e5]
    output = write_store(tmp_path, store_case)
    statistics = json.loads((output / "zarr.json").read_bytes())["attributes"]["statistics"]
    weights = np.concatenate([view.points.valuable_weight for view in store_case.views])
    stored = [len(content) for name, content in content_of(output).items() if name != "zarr.json"]
    expected = {
        "views": 14,
        "points": len(weights),
        "boxes": sum(len(view.labels) for view in store_case.views),
        "main_points": sum(len(targets.cls_logits) for targets in store_case.targets),
        "valuable_points": np.count_nonzero(weights),
        "mean_valuable_weight": pytest.approx(weights[weights > 0].mean(), abs=5e-4),
        "edge_codes_clipped": 4,  # all coefficients of that edge
        "edge_clipped_fraction": pytest.approx(4 / (105 * 4 * 4)),
        "cls_clipped_fraction": 0,
        "bytes": sum(stored),
    }
    assert {name: statistics[name] for name in expected} == expected
