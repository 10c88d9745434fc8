"""What killed runs left: all of it is listed, and only what no run holds is removed."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from store_cases import make_store_case, write_all

from pipeline.cli.options import copied_recipe
from pipeline.cli.scratch import IDLE_SECONDS, Leftover, clean, list_leftovers, render
from pipeline.core.files import digest, is_held, lock_scratch
from recipes import ROOT

NAME = digest(make_store_case().schema.fingerprint)[:16]
OLD = 1e9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One of everything: a store with two of four partitions, a training, seed runs, two rehearsals."""
    scratch, temporary = tmp_path / "scratch", tmp_path / "tmp"
    write_all(scratch / NAME, make_store_case(), [0, 2])
    for folder in (scratch / "training/ld-0123456789abcdef", scratch / "seeds", temporary / "another"):
        folder.mkdir(parents=True)
        (folder / "a.json").write_text("{}")
    for name in ("ldp-rehearse-new", "ldp-rehearse-old"):
        (temporary / name).mkdir()
    os.utime(temporary / "ldp-rehearse-old", (OLD, OLD))
    return tmp_path


def leftovers(root: Path) -> list[Leftover]:
    return list_leftovers(root / "scratch", root / "tmp")


def names(found: list[Leftover]) -> set[str]:
    return {leftover.path.name for leftover in found}


def test_everything_that_takes_space_is_listed_with_what_it_is(root: Path) -> None:
    before = sorted(root.rglob("*"))
    found = {leftover.path.name: leftover for leftover in leftovers(root)}
    assert sorted(root.rglob("*")) == before, "listing leaves no trace"
    store = found.pop(NAME)
    assert store.what == "an unfinished store: 2 of 4 partitions, 14 views"
    files = [file for file in (root / "scratch" / NAME).rglob("*") if file.is_file()]
    assert store.bytes == sum(file.stat().st_size for file in files)
    assert store.written == max(file.stat().st_mtime for file in files)
    assert {name: leftover.what for name, leftover in found.items()} == {
        "ld-0123456789abcdef": "unfinished training of ld",
        "seeds": "1 finished run of ldp seeds",
        "ldp-rehearse-new": "a rehearsal or measurement",
        "ldp-rehearse-old": "a rehearsal or measurement that was killed",
    }


def test_a_line_says_how_large_how_old_and_whether_it_can_go(root: Path) -> None:
    lines = render(leftovers(root)).splitlines()
    (old,) = (line for line in lines if "ldp-rehearse-old" in line)
    (seeds,) = (line for line in lines if "seeds  " in line)
    assert "  0 B  " in old
    assert "days old; can go" in old
    assert seeds.endswith("0.0 hours old; stays: else they would be trained again")
    assert render([]) == ""


def test_what_a_killed_measurement_leaves_is_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(root / "tmp"))
    known = names(leftovers(root))
    with copied_recipe(Namespace(recipe=str(ROOT / "recipes/smoke"), assignments=[])) as copy:
        assert names(leftovers(root)) - known == {copy.parent.name}


def test_no_scratch_folder_is_nothing_left(tmp_path: Path) -> None:
    assert list_leftovers(tmp_path / "nowhere", tmp_path) == []


def test_cleaning_removes_what_can_go_and_leaves_everything_else_alone(root: Path) -> None:
    gone = clean(leftovers(root))
    assert names(gone) == {NAME, "ld-0123456789abcdef", "ldp-rehearse-old"}
    assert names(leftovers(root)) == {"seeds", "ldp-rehearse-new"}
    assert (root / "scratch/seeds/a.json").read_text() == "{}"
    assert (root / "tmp/another/a.json").is_file()


def test_a_temporary_folder_that_was_written_to_today_stays(root: Path) -> None:
    file = root / "tmp/ldp-rehearse-old/a"
    file.touch()
    assert "ldp-rehearse-old" not in names(clean(leftovers(root)))
    recent = file.stat().st_mtime - IDLE_SECONDS - 60
    os.utime(file, (recent, recent))
    assert "ldp-rehearse-old" in names(clean(leftovers(root)))


def test_a_store_that_was_not_begun_or_is_damaged_can_go(root: Path) -> None:
    (root / "scratch" / NAME / "store.zarr/zarr.json").write_text("{")
    (root / "scratch/0123456789abcdef").mkdir()
    found = [x for x in leftovers(root) if x.path.name in (NAME, "0123456789abcdef")]
    assert {leftover.what for leftover in found} == {"an unfinished store: not begun, or damaged"}
    assert clean(found) == found


def test_a_folder_that_a_run_takes_after_it_was_listed_stays(root: Path) -> None:
    (found,) = (leftover for leftover in leftovers(root) if leftover.path.name == NAME)
    assert found.kept is None
    with lock_scratch(root / "scratch" / NAME):
        assert clean([found]) == []
    assert (root / "scratch" / NAME / "store.zarr").is_dir()


def test_another_process_is_seen_to_hold_a_folder(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.core.files import lock_scratch\n"
        "with lock_scratch(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    held = root / "scratch" / NAME
    command = [sys.executable, "-c", code, str(held)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert is_held(held)
        (listed,) = (leftover for leftover in leftovers(root) if leftover.path == held)
        assert listed.kept == "a run holds it"
        assert NAME not in names(clean(leftovers(root)))
        holder.kill()
    assert not is_held(held)
