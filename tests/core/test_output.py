"""Files take the place of older ones whole, or not at all."""

import os
from pathlib import Path

import pytest

from pipeline.core.errors import OutputError
from pipeline.core.output import replacing


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def write_half(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_copy_in_dvcs_cache_is_not_written_into(tmp_path: Path, link) -> None:
    cached, path = tmp_path / "cached", tmp_path / "a.txt"
    cached.write_text("old")
    link(cached, path)
    with replacing(path) as partial:
        partial.write_text("new")
    assert (cached.read_text(), path.read_text(), path.is_symlink()) == ("old", "new", False)


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"a\.txt could not be written: expected a folder at .*file, but"):
        write_half(tmp_path / "file" / "a.txt", KeyboardInterrupt)


def test_what_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.mkdir()
    with (
        pytest.raises(OutputError, match=r"a\.txt could not be written: Is a directory; make room"),
        replacing(path) as partial,
    ):
        partial.touch()
    assert list(tmp_path.iterdir()) == [path]
