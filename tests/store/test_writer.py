import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import to_builtins
from store_cases import (
    LOSSLESS,
    content_of,
    flip_bit,
    make_store_case,
    make_view,
    store_case_of,
    write_all,
    write_one,
    write_store,
    write_views,
)

from pipeline.core.errors import CacheError
from pipeline.core.files import FileDigest
from pipeline.store.format.attributes import read_attributes, write_attributes
from pipeline.store.writer import partition, writer
from pipeline.store.writer.writer import STORE_FOLDER, finalise, finished_partitions, init, record_path
from pipeline.views.types import SoftTargets, ViewKey


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store that was written in one go."""
    return content_of(write_store(tmp_path_factory.mktemp("expected"), make_store_case()))


def finish(folder: Path) -> dict[str, bytes]:
    finalise(folder, folder.parent / "finished.zarr")
    return content_of(folder.parent / "finished.zarr")


def test_order_of_partitions_and_repetition_do_not_change_a_byte(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    write_all(tmp_path / "scratch", make_store_case(), [3, 1, 1, 0, 2, 3])
    assert finish(tmp_path / "scratch") == expected


@pytest.mark.parametrize("together", [1, 3])
def test_how_many_views_are_quantized_together_changes_no_byte(
    tmp_path: Path, together: int, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "VIEWS_TOGETHER", together)
    assert content_of(write_store(tmp_path, make_store_case())) == expected


def test_another_process_writes_the_same_bytes(tmp_path: Path, expected: dict[str, bytes]) -> None:
    store_case = make_store_case()
    init(tmp_path / "scratch", store_case.schema, store_case.table)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(write_one, [(tmp_path / "scratch", store_case, index) for index in range(4)])
    assert finish(tmp_path / "scratch") == expected


def test_finished_partitions_are_those_with_a_record_and_whole_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_all(tmp_path, make_store_case(), range(4))
    record_path(tmp_path, 1).write_text("{")
    assert finished_partitions(tmp_path) == {0, 2, 3}, "partition 2 has no points, and so no files"
    assert "p00001.json" in caplog.text
    shard = tmp_path / STORE_FOLDER / "points/region/c/3/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    (tmp_path / STORE_FOLDER / "points/edge_codes/c/0/0").unlink()
    assert finished_partitions(tmp_path) == {2}


def test_killed_while_a_partition_is_rewritten_leaves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_case = make_store_case()
    write_all(tmp_path, store_case, [0])

    def fail(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "encode_shard", fail)
    with pytest.raises(KeyboardInterrupt):
        write_one(tmp_path, store_case, 0)
    assert finished_partitions(tmp_path) == set()


def test_records_of_an_earlier_store_do_not_vouch_for_this_one(tmp_path: Path) -> None:
    store_case = make_store_case()
    write_all(tmp_path, store_case, range(4))
    (tmp_path / STORE_FOLDER).rename(tmp_path / "elsewhere")
    init(tmp_path, store_case.schema, store_case.table)
    assert finished_partitions(tmp_path) == set()
    assert not record_path(tmp_path, 0).exists()


def test_a_store_begun_with_other_metadata_is_finished_with_that_of_now(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """As of another release of zarr: the file is as its writer recorded it, and not as it is written now."""
    store_case = make_store_case()
    scratch, name = tmp_path / "scratch", "points/region/zarr.json"
    write_all(scratch, store_case, [0])
    begun = scratch / STORE_FOLDER
    (begun / name).write_bytes((begun / name).read_bytes() + b"\n")
    attributes = read_attributes(begun)
    attributes["files"][name] = to_builtins(FileDigest.of_file(begun / name))
    write_attributes(begun, attributes)
    write_all(scratch, store_case, [1, 2, 3])
    assert finished_partitions(scratch) == {0, 1, 2, 3}
    assert finish(scratch) == expected


OTHERS = {
    "quantizer differs": make_store_case(LOSSLESS),
    r"schema\.fingerprint": replace(
        make_store_case(), schema=replace(make_store_case().schema, fingerprint={"teacher": "other"})
    ),
    r"schema\.fingerprint.* \(absent\)": replace(
        make_store_case(), schema=replace(make_store_case().schema, fingerprint={})
    ),
    "table_sha256": store_case_of([*make_store_case().views[:-1], make_view(ViewKey(9999, 1), 3, 1)]),
}


@pytest.mark.parametrize("what", OTHERS)
def test_init_refuses_the_beginning_of_another_store(tmp_path: Path, what: str) -> None:
    write_all(tmp_path, make_store_case(), [])
    with pytest.raises(CacheError, match=f"another store: {what}"):
        init(tmp_path, OTHERS[what].schema, OTHERS[what].table)


def test_without_init_nothing_is_written_nor_finished(tmp_path: Path) -> None:
    for act in (
        lambda: write_one(tmp_path, make_store_case(), 0),
        lambda: finalise(tmp_path, tmp_path / "o"),
    ):
        with pytest.raises(CacheError, match=r"it has no zarr\.json"):
            act()


@pytest.mark.parametrize("index", [-1, 4])
def test_a_partition_that_is_not_planned_is_refused(tmp_path: Path, index: int) -> None:
    store_case = make_store_case()
    write_all(tmp_path, store_case, [])
    with pytest.raises(CacheError, match=r"0\.\.3"):
        write_views(tmp_path, index, store_case.views[:4], store_case.targets[:4])


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
def test_views_other_than_planned_are_refused(tmp_path: Path, change: Callable[..., list[object]]) -> None:
    store_case = make_store_case()
    write_all(tmp_path, store_case, [])
    with pytest.raises(CacheError, match="its 4 views"):
        write_views(tmp_path, 0, change(store_case.views[:4]), store_case.targets[:4])
    assert finished_partitions(tmp_path) == set()


@pytest.mark.parametrize("name", ["edge_logits", "cls_logits"])
def test_targets_that_are_not_finite_of_another_shape_or_too_few_are_refused(
    tmp_path: Path, name: str
) -> None:
    store_case = make_store_case()
    write_all(tmp_path, store_case, [])
    good = {"edge_logits": store_case.targets[3].edge_logits, "cls_logits": store_case.targets[3].cls_logits}
    broken = good[name].copy()
    broken.flat[0] = np.nan
    last = ([SoftTargets(**{**good, name: bad})] for bad in (broken, good[name][:-1]))
    for targets in (*last, []):
        with pytest.raises(ValueError, match=r"expected|shorter"):
            write_views(tmp_path, 0, store_case.views[:4], [*store_case.targets[:3], *targets])
    assert finished_partitions(tmp_path) == set()


def test_finalise_missing_partition_fails(tmp_path: Path) -> None:
    write_all(tmp_path / "scratch", make_store_case(), [0, 2])
    with pytest.raises(CacheError, match=r"expected 4 partitions, but 2 are missing or damaged: 1, 3;"):
        finish(tmp_path / "scratch")
    assert not (tmp_path / "finished.zarr").exists()


def test_finalise_finds_a_damaged_shard_which_alone_is_written_again_and_replaces_an_old_output(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    store_case, scratch = make_store_case(), tmp_path / "scratch"
    write_all(scratch, store_case, range(4))
    flip_bit(scratch / STORE_FOLDER / "points/edge_codes/c/1/0", 40)
    with pytest.raises(CacheError, match=r"1 are missing or damaged: 1;"):
        finish(scratch)
    assert finished_partitions(scratch) == {0, 2, 3}
    write_one(scratch, store_case, 1)
    (tmp_path / "finished.zarr").mkdir()
    (tmp_path / "finished.zarr/old").touch()
    assert finish(scratch) == expected
    assert not scratch.exists()


def test_statistics_are_those_of_the_views(tmp_path: Path) -> None:
    store_case = make_store_case()
    store_case.targets[0].edge_logits[0, 0, :2] = [1e5, -1e5]
    output = write_store(tmp_path, store_case)
    statistics = json.loads((output / "zarr.json").read_bytes())["attributes"]["statistics"]
    weights = np.concatenate([view.points.valuable_weight for view in store_case.views])
    assert statistics["views"] == 14
    assert statistics["points"] == len(weights) == 105
    assert statistics["boxes"] == sum(len(view.labels) for view in store_case.views)
    assert statistics["main_points"] == sum(len(targets.cls_logits) for targets in store_case.targets)
    assert statistics["valuable_points"] == np.count_nonzero(weights)
    assert statistics["mean_valuable_weight"] == pytest.approx(weights[weights > 0].mean(), abs=5e-4)
    assert statistics["edge_codes_clipped"] == 4, "all coefficients of that edge"
    assert statistics["edge_clipped_fraction"] == pytest.approx(4 / (105 * 4 * 4))
    assert statistics["cls_clipped_fraction"] == 0
    stored = sum(len(content) for name, content in content_of(output).items() if name != "zarr.json")
    assert statistics["bytes"] == stored
