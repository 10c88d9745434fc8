"""Every damaged file is found: by ``verify``, and by ``open`` or ``read`` before a wrong number gets out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from store_cases import content_of, flip_bit, make_store_case, make_view, store_case_of, write_store

from pipeline.core.errors import CacheError
from pipeline.store.format.attributes import read_attributes, write_attributes
from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import ShardedRows
from pipeline.store.reader.verify import Problem, verify
from pipeline.views.types import ViewKey

SHARDED = ["points/region", "points/edge_codes", "main/cls_codes"]
TABLES = ["views/image_id", "views/view", "views/geometry", "views/extent", "boxes/xyxy", "boxes/label"]
FLIPS_A_FILE = 24


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path, make_store_case())


def problems(path: Path) -> list[Problem]:
    return verify(path)


def read_all(path: Path) -> None:
    store = TargetStore.open(path)
    for key in store.keys:
        store.read(key)


def test_a_whole_store_has_no_problems_and_every_file_is_counted(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify(path, "verify") == []
    files = len(content_of(path)) - 1
    assert f"verify: {files} of {files} " in capfd.readouterr().err


@pytest.mark.parametrize("array", SHARDED)
def test_a_removed_shard_is_found(path: Path, array: str) -> None:
    store = TargetStore.open(path)
    (path / array / "c/1/0").unlink()
    assert problems(path) == [Problem(file=f"{array}/c/1/0", partition=1, message="the file is missing")]
    with pytest.raises(CacheError, match=f"partition 1 of {array} of .* the shard is missing"):
        [store.read(key) for key in store.keys]
    with pytest.raises(CacheError, match=f"{array}/c/1/0: the file is missing"):
        TargetStore.open(path)


@pytest.mark.parametrize("array", SHARDED)
@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_truncated_shard_is_found(path: Path, array: str, keep: int) -> None:
    store = TargetStore.open(path)
    shard = path / array / "c/0/0"
    shard.write_bytes(shard.read_bytes()[:keep])
    assert [(problem.file, problem.partition) for problem in problems(path)] == [(f"{array}/c/0/0", 0)]
    with pytest.raises(CacheError, match=f"partition 0 of {array}"):
        [store.read(key) for key in store.keys]
    with pytest.raises(CacheError, match="bytes, but got"):
        TargetStore.open(path)


@pytest.mark.parametrize("array", SHARDED)
def test_any_flipped_bit_of_a_shard_is_found(path: Path, array: str) -> None:
    shard = path / array / "c/0/0"
    size = shard.stat().st_size
    for offset in range(0, size, max(1, size // FLIPS_A_FILE)):
        flip_bit(shard, offset)
        assert [problem.file for problem in problems(path)] == [f"{array}/c/0/0"]
        with pytest.raises(CacheError, match=f"partition 0 of {array} of {path} is damaged: the checksum"):
            read_all(path)
        flip_bit(shard, offset)
    read_all(path)


@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_or_removed_table_is_found(path: Path, table: str) -> None:
    (chunk,) = (file for file in (path / table / "c").rglob("*") if file.is_file())
    name = chunk.relative_to(path).as_posix()
    flip_bit(chunk, chunk.stat().st_size // 2)
    assert [(problem.file, problem.partition) for problem in problems(path)] == [(name, None)]
    with pytest.raises(CacheError, match=f"{name}: the content differs"):
        TargetStore.open(path)
    chunk.unlink()
    assert [problem.message for problem in problems(path)] == ["the file is missing"]
    with pytest.raises(CacheError, match=f"{name}: the file is missing"):
        TargetStore.open(path)


def test_a_damaged_table_is_found_even_if_it_changes_after_open_checked_it(path: Path) -> None:
    """The table's own crc, alone: what a store keeps when read without this project's records."""
    store = TargetStore.open(path)
    attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
    flip_bit(path / "views/extent/c/0/0", 30)
    with pytest.raises(CacheError, match=r"views/extent of .* its checksum differs"):
        TargetStore(store.path, attributes)


def test_damaged_metadata_of_an_array_is_found(path: Path) -> None:
    flip_bit(path / "points/region/zarr.json", 20)
    assert [problem.file for problem in problems(path)] == ["points/region/zarr.json"]


def test_any_change_of_the_attributes_is_found(path: Path) -> None:
    root = path / "zarr.json"
    document = root.read_bytes()
    for old, new in [(b'"reg_max": 4', b'"reg_max": 5'), (b'"size": ', b'"size": 1'), (b"sha256", b"sha255")]:
        root.write_bytes(document.replace(old, new, 1))
        with pytest.raises(CacheError, match="is damaged"):
            problems(path)
        with pytest.raises(CacheError, match="is damaged"):
            TargetStore.open(path)
    root.write_bytes(document[:-20])
    with pytest.raises(CacheError, match="is damaged"):
        TargetStore.open(path)


def test_a_file_that_is_not_part_of_the_store_is_reported(path: Path) -> None:
    (path / "points/stray.partial").touch()
    assert [(problem.file, problem.message) for problem in problems(path)] == [
        ("points/stray.partial", "the file is not part of the store")
    ]


def test_a_link_to_a_folder_is_not_part_of_a_store(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (path / "points/evil").symlink_to(tmp_path / "elsewhere")
    assert [problem.file for problem in problems(path)] == ["points/evil"]


@pytest.mark.parametrize("content", [b"[" * 10**6, b'{"attributes": {"schema": {"format_version": NaN}}}'])
def test_a_root_that_is_no_root_is_refused_in_one_line(path: Path, content: bytes) -> None:
    (path / "zarr.json").write_bytes(content)
    with pytest.raises(CacheError, match="is damaged, or not of a store"):
        TargetStore.open(path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_recorded_file_outside_the_store_is_refused(path: Path, name: str) -> None:
    attributes = read_attributes(path)
    attributes["files"][name] = {"size": 1, "sha256": "0" * 64}
    write_attributes(path, attributes)
    with pytest.raises(CacheError, match="expected files inside the store"):
        TargetStore.open(path)


def test_problems_of_several_partitions_come_in_order(path: Path) -> None:
    for name in ("points/region/c/3/0", "main/cls_codes/c/0/0"):
        (path / name).unlink()
    assert [(problem.file, problem.partition) for problem in problems(path)] == [
        ("main/cls_codes/c/0/0", 0),
        ("points/region/c/3/0", 3),
    ]


@pytest.mark.parametrize("opened", ["before", "afterwards"])
def test_a_whole_shard_of_another_partition_is_found(tmp_path: Path, opened: str) -> None:
    """Same size, and every checksum in it holds: only the record tells them apart."""
    path = write_store(tmp_path, store_case_of([make_view(ViewKey(number, 0), 9, 1) for number in range(8)]))
    store = TargetStore.open(path)
    shards = [path / f"main/cls_codes/c/{index}/0" for index in (0, 1)]
    content = [shard.read_bytes() for shard in shards]
    assert len(content[0]) == len(content[1]), "the case needs two shards of one size"
    if opened == "before":
        [store.read(key) for key in store.keys]
    for shard, other in zip(shards, reversed(content), strict=True):
        shard.unlink()
        shard.write_bytes(other)
    if opened == "afterwards":
        store = TargetStore.open(path)
    with pytest.raises(CacheError, match=r"partition 0 of main/cls_codes of .* not those recorded"):
        store.read(store.keys[0])
    assert [problem.partition for problem in problems(path)] == [0, 1]


def test_a_whole_frame_that_is_shorter_than_its_chunk_is_refused(path: Path) -> None:
    """Its rest would be memory as it happened to be."""
    codes = sharded_specs(TargetStore.open(path).schema)[1]
    assert codes.shards is not None
    width = 2 * codes.shape[1]
    wider = replace(
        codes,
        shape=(codes.shape[0], width),
        chunks=(codes.chunks[0], width),
        shards=(codes.shards[0], width),
    )
    with pytest.raises(CacheError, match="chunk 0 is of another size"):
        ShardedRows(path, wider).read(0, 1)
