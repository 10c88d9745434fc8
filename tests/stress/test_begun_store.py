"""A begun store may come to harm before it is finished: the next run mends it, or says what to do."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from store_cases import StoreCase, content_of, flip_middle, random_store_case, write_one, write_remaining

from pipeline.core.errors import CacheError
from pipeline.core.files import LOCK_FILE
from pipeline.store.writer.writer import finalise, finished_partitions, init

STORE = "store.zarr"
Content = dict[str, bytes]
PLANNED_FILES = ["views/extent/c/0/0", "views/image_id/zarr.json", "points/zarr.json"]


@pytest.fixture(scope="module")
def store_case() -> StoreCase:
    return random_store_case(6, views_per_partition=3, most_points=20, chunk_rows=8)


@pytest.fixture(scope="module")
def expected(store_case: StoreCase, tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("expected")
    write_remaining(folder / "scratch", folder / "targets.zarr", store_case)
    return content_of(folder / "targets.zarr")


@pytest.fixture
def begun(store_case: StoreCase, tmp_path: Path) -> Path:
    """A scratch folder with two finished partitions."""
    scratch = tmp_path / "scratch"
    init(scratch, store_case.schema, store_case.table)
    for index in (0, 2):
        write_one(scratch, store_case, index)
    return scratch


@pytest.mark.parametrize("name", PLANNED_FILES)
@pytest.mark.parametrize("change", [flip_middle, Path.unlink], ids=["harmed", "removed"])
def test_a_planned_file_that_came_to_harm_is_not_sealed_but_written_again(
    begun: Path,
    store_case: StoreCase,
    expected: Content,
    name: str,
    change: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for index in (1, 3):
        write_one(begun, store_case, index)
    change(begun / STORE / name)
    output = begun.parent / "targets.zarr"
    with pytest.raises(CacheError, match=f"{name}: the .*; run the stage again"):
        finalise(begun, output)
    assert write_remaining(begun, output, store_case) == {0, 1, 2, 3}
    assert content_of(output) == expected
    assert f"{name} is damaged: written again" in caplog.text


def test_files_that_nobody_planned_do_not_get_into_the_store(
    begun: Path, store_case: StoreCase, expected: Content
) -> None:
    for name in (".DS_Store", "points/region/c/0/0.1f2e.partial", "points/region/c/9"):
        (begun / STORE / name).write_bytes(b"?")
    output = begun.parent / "targets.zarr"
    assert write_remaining(begun, output, store_case) == {0, 2}
    assert content_of(output) == expected


def test_a_begun_store_that_cannot_be_continued_says_what_to_do(begun: Path, store_case: StoreCase) -> None:
    flip_middle(begun / STORE / "zarr.json")
    with pytest.raises(CacheError, match=f"{begun} cannot be continued: remove it, and run again"):
        init(begun, store_case.schema, store_case.table)
    shutil.rmtree(begun)
    init(begun, store_case.schema, store_case.table)
    assert finished_partitions(begun) == set()


def test_a_run_that_begins_as_another_one_clears_up_does_not_break_that_one(
    begun: Path, store_case: StoreCase, expected: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts its lock into the folder after the other has looked what there is to remove."""
    for index in (1, 3):
        write_one(begun, store_case, index)
    rmdir = os.rmdir

    def with_a_lock_of_another(path: Any, **options: Any) -> None:
        if Path(path) == begun:
            (begun / LOCK_FILE).touch()
        rmdir(path, **options)

    monkeypatch.setattr("os.rmdir", with_a_lock_of_another)
    output = begun.parent / "targets.zarr"
    finalise(begun, output)
    assert content_of(output) == expected
    assert [path.name for path in begun.iterdir()] == [LOCK_FILE]
