"""Files survive a kill: whole or not at all, never mixed, and locked."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.core import files
from pipeline.core.errors import CacheError, OutputError
from pipeline.core.files import (
    LOCK_FILE,
    FileDigest,
    atomic_path,
    lock_scratch,
    move_into_place,
    remove,
    require_writable,
    write_atomically,
)


def test_a_second_run_at_once_is_refused(tmp_path: Path) -> None:
    refused = pytest.raises(CacheError, match=f"another run is writing to {tmp_path}")
    with lock_scratch(tmp_path), refused, lock_scratch(tmp_path):
        pass
    with lock_scratch(tmp_path):
        pass


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run finishes, and removes its folder, between our opening and our locking of the file."""
    monkeypatch.setattr("fcntl.flock", lambda *_: (tmp_path / LOCK_FILE).unlink())
    with pytest.raises(CacheError, match="run again"), lock_scratch(tmp_path):
        pass


def test_digest_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "file"
    expected = FileDigest.of_bytes(b"abc")
    assert expected.sha256.startswith("ba7816bf"), "FIPS 180-2, appendix B.1"
    assert expected.problem(path) == "the file is missing"
    path.write_bytes(b"ab")
    assert expected.problem(path) == "expected 3 bytes, but got 2"
    path.write_bytes(b"abd")
    assert "differs" in str(expected.problem(path))
    assert expected.size_problem(path) is None
    path.write_bytes(b"abc")
    assert expected.problem(path) is None
    assert FileDigest.of_file(path) == expected


def test_remove_takes_files_links_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("file", "folder", "link", "nothing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_folder_moves_to_another_file_system_by_a_copy_and_a_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_inside(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, "another file system")
        return rename(self, target)

    (tmp_path / "here/store").mkdir(parents=True)
    (tmp_path / "here/store/file").write_bytes(b"abc")
    monkeypatch.setattr(Path, "rename", rename_inside)
    move_into_place(tmp_path / "here/store", tmp_path / "there/store")
    assert (tmp_path / "there/store/file").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["store"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"

    def write_half() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_copy_in_dvcs_cache_is_not_written_into(tmp_path: Path, link) -> None:
    cached, path = tmp_path / "cached", tmp_path / "a.txt"
    cached.write_text("old")
    link(cached, path)
    write_atomically(path, b"new")
    assert (cached.read_text(), path.read_text(), path.is_symlink()) == ("old", "new", False)


def test_what_is_in_the_way_or_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for name, reason in (("file/a.txt", ".*/file is no folder"), ("folder", "Is a directory")):
        with pytest.raises(OutputError, match=rf"{name} could not be written: {reason}; make room"):
            write_atomically(tmp_path / name, b"x")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
    require_writable(tmp_path / "runs/x")
    monkeypatch.setattr(files.os, "access", lambda path, _mode: path != tmp_path)  # as root everything may
    with pytest.raises(OutputError, match=f"a folder to write to, but {tmp_path} is read-only"):
        require_writable(tmp_path / "runs/x")


def test_two_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with atomic_path(path) as first:
        first.write_text("first")
        with atomic_path(path) as second:
            second.write_text("second")
            assert not path.exists()
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]
