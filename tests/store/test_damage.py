"""Every damaged file is found: by ``verify``, and by ``open`` or ``read`` before a wrong number gets out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from store_cases import content_of, flip_bit, make_store_case, write_store

from pipeline.core.errors import CacheError
from pipeline.store.format.attributes import read_attributes, write_attributes
from pipeline.store.format.schema import sharded_specs
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import ShardedRows
from pipeline.store.reader.verify import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path, make_store_case())


def test_a_whole_store_has_no_problems_and_every_file_is_counted(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verify(path, "verify") == []
    files = len(content_of(path)) - 1
    assert f"verify: {files} of {files} " in capfd.readouterr().err


def test_a_damaged_table_is_found_even_if_it_changes_after_open_checked_it(path: Path) -> None:
    """The table's own crc, alone: what a store keeps when read without this project's records."""
    store = TargetStore.open(path)
    attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
    flip_bit(path / "views/extent/c/0/0", 30)
    with pytest.raises(CacheError, match=r"views/extent of .* the checksum of the table differs"):
        TargetStore(store.path, attributes)


def test_files_and_links_that_are_not_part_of_the_store_are_reported(path: Path) -> None:
    (path / "points/stray.partial").touch()
    (path / "points/evil").symlink_to(path.parent)
    assert [(problem.file, problem.message) for problem in verify(path)] == [
        (name, "the file is not part of the store") for name in ("points/evil", "points/stray.partial")
    ]


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


def test_a_whole_frame_that_is_shorter_than_its_chunk_is_refused(path: Path) -> None:
    """Its rest would be memory as it happened to be."""
    spec = sharded_specs(TargetStore.open(path).schema)[1]
    rows, (chunk_rows, columns) = spec.shard_rows, spec.chunks
    wider = replace(
        spec, shape=(rows, 2 * columns), chunks=(chunk_rows, 2 * columns), shards=(rows, 2 * columns)
    )
    with pytest.raises(CacheError, match="chunk 0 is of another size"):
        ShardedRows(path, wider, {}).read(0, 1)


@pytest.mark.parametrize(
    ("harm", "found", "reading", "opening"),
    [
        (Path.unlink, "the file is missing", "the shard is missing", "the file is missing"),
        (lambda shard: shard.write_bytes(b"half"), "but got 4", "damaged", "bytes, but got 4"),
        (lambda shard: flip_bit(shard, 30), "the content differs", "the checksum", None),
    ],
    ids=["removed", "cut", "flipped"],
)
def test_a_damaged_shard_is_named(
    path: Path, harm: Callable[[Path], object], found: str, reading: str, opening: str | None
) -> None:
    """That whatever else befalls any file is found, too, is the experiment of `stress/test_damage.py`."""
    store = TargetStore.open(path)
    harm(path / "points/edge_codes/c/1/0")
    (problem,) = verify(path)
    assert (problem.file, problem.partition) == ("points/edge_codes/c/1/0", 1)
    assert found in problem.message
    with pytest.raises(CacheError, match=f"partition 1 of points/edge_codes of .* {reading}"):
        [store.read(key) for key in store.keys]
    if opening:
        with pytest.raises(CacheError, match=f"points/edge_codes/c/1/0: .*{opening}"):
            TargetStore.open(path)
