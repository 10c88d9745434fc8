"""Scratch folders: listed with how far they are, removed only while no run holds them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_cases import make_plan, write_all

from pipeline.core.digest import digest
from pipeline.core.files import is_held, lock_scratch
from pipeline.store.tools.scratch import clean_scratch, list_scratch

NAME = digest(make_plan().schema.fingerprint)[:16]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One store with two of four partitions, and what other commands keep beside it."""
    write_all(tmp_path / NAME, make_plan(), [0, 2])
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/finished.json").write_text("{}")
    (tmp_path / "0123456789abcdef.txt").touch()
    return tmp_path


def test_a_begun_store_is_listed_with_how_far_it_is(root: Path) -> None:
    os.utime(root / NAME / "partitions/p00002.json", (2e9, 2e9))
    (folder,) = list_scratch(root)
    assert folder.path == root / NAME
    assert folder.schema == make_plan().schema
    assert (folder.finished, folder.held, folder.written) == (2, False, 2e9)
    assert folder.bytes == sum(file.stat().st_size for file in (root / NAME).rglob("*") if file.is_file())


def test_no_scratch_folder_is_no_store(tmp_path: Path) -> None:
    assert list_scratch(tmp_path / "nowhere") == []


def test_folders_that_were_not_begun_or_are_damaged_are_listed_and_can_go(root: Path) -> None:
    (root / NAME / "store.zarr/zarr.json").write_text("{")
    (root / "0123456789abcdef").mkdir()
    folders = list_scratch(root)
    assert {(folder.path.name, folder.schema, folder.finished) for folder in folders} == {
        (NAME, None, 0),
        ("0123456789abcdef", None, 0),
    }
    assert {folder.path for folder in clean_scratch(folders)} == {folder.path for folder in folders}


def test_cleaning_leaves_everything_else_alone(root: Path) -> None:
    (gone,) = clean_scratch(list_scratch(root))
    assert gone.path == root / NAME
    assert {path.name for path in root.iterdir()} == {"seeds", "0123456789abcdef.txt"}
    assert (root / "seeds/finished.json").read_text() == "{}"


def test_a_held_folder_stays(root: Path) -> None:
    with lock_scratch(root / NAME):
        (folder,) = list_scratch(root)
        assert folder.held
        assert clean_scratch([folder]) == []
    assert list_scratch(root)[0].finished == 2


def test_a_folder_that_a_run_takes_after_it_was_listed_stays(root: Path) -> None:
    folders = list_scratch(root)
    assert not folders[0].held
    with lock_scratch(root / NAME):
        assert clean_scratch(folders) == []
    assert (root / NAME / "store.zarr").is_dir()


def test_asking_whether_a_folder_is_held_leaves_no_trace(root: Path) -> None:
    before = sorted(root.rglob("*"))
    assert not is_held(root / NAME)
    assert sorted(root.rglob("*")) == before
    with lock_scratch(root / NAME):
        assert is_held(root / NAME)
    assert not is_held(root / NAME)


def test_another_process_is_seen_to_hold_a_folder(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.core.files import lock_scratch\n"
        "with lock_scratch(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(root / NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert is_held(root / NAME)
        assert clean_scratch(list_scratch(root)) == []
        holder.kill()
    assert not is_held(root / NAME)
