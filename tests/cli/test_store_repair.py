"""Repair with a live teacher: the same bytes again, of damaged partitions only, and of no other store."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_cases import content_of, flip_middle
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.cli.store_repair import (
    Damage,
    damaged_objects,
    find_damage,
    remove_unexpected,
    repair_store,
    require_repaired,
)
from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import CacheError
from pipeline.core.files import digest, lock_scratch
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.verify import verify
from pipeline.teacher.extractor import DecodedBatch, LogitExtractor, PendingTargets, ViewBatch
from pipeline.teacher.run import write_store

DENSE = DensePrecision()
IMAGES = 6
"""Twelve views in three partitions."""


def unwanted() -> LogitExtractor:
    raise AssertionError("nothing here needs the teacher")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    view_set = small_view_set(folder, IMAGES)
    write_store(
        small_layout(view_set, QUANTIZED, dense=DENSE),
        view_set,
        small_teacher(view_set.manifest, dense=DENSE),
        scratch_root=folder / "scratch",
        output=folder / "targets.zarr",
    )
    return folder


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written / "targets.zarr", tmp_path / "targets.zarr"))


@pytest.fixture
def view_set(written: Path) -> ViewSet:
    return small_view_set(written, IMAGES)


def harm(store: Path, *names: str) -> Damage:
    for name in names:
        flip_middle(store / name)
    return find_damage(store)


def repair(damage: Damage, view_set: ViewSet, teacher: LogitExtractor | None, **changes: Any) -> list[str]:
    """Repair; without a ``teacher`` none may be asked for."""
    arguments = {
        "fingerprint": damage.schema.fingerprint,
        "load_teacher": (lambda: teacher) if teacher else unwanted,
        "scratch_root": damage.path.parent / "scratch",
    }
    replaced = repair_store(damage, view_set, **{**arguments, **changes})
    remove_unexpected(damage)
    return replaced


def test_the_teacher_sees_the_views_of_damaged_partitions_alone(
    store: Path, view_set: ViewSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keys, seen = content_of(store), TargetStore.open(store).keys, []
    damage = harm(store, "main/cls_codes/c/1/0", "views/geometry/c/0/0")
    teacher = small_teacher(view_set.manifest, dense=DENSE)
    forward = LogitExtractor.forward

    def record(self: LogitExtractor, images: DecodedBatch, batch: ViewBatch) -> PendingTargets:
        seen.extend(batch.views)
        return forward(self, images, batch)

    monkeypatch.setattr(LogitExtractor, "forward", record)
    repair(damage, view_set, teacher)
    assert sorted(view.key for view in seen) == list(keys[4:8])
    assert content_of(store) == before


def test_tables_and_metadata_need_no_teacher(store: Path, view_set: ViewSet) -> None:
    before = content_of(store)
    damage = harm(store, "views/extent/c/0/0", "boxes/xyxy/zarr.json")
    repair(damage, view_set, None)
    assert content_of(store) == before


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def put_a_folder_in_its_place(file: Path) -> None:
    file.unlink()
    (file / "inner").mkdir(parents=True)


@pytest.mark.parametrize("damage_file", [Path.unlink, truncate, put_a_folder_in_its_place])
def test_whatever_has_become_of_a_file_it_comes_back_by_a_rename(
    store: Path, view_set: ViewSet, damage_file: Callable[[Path], None]
) -> None:
    before = content_of(store)
    linked = store.parent / "cached"
    for name in ("points/edge_codes/c/1/0", "dense/cls_codes/c/1/0", "views/image_id/c/0"):
        damage_file(store / name)
    os.link(store / "points/region/c/1/0", linked)
    (store / "stray/deep").mkdir(parents=True)
    (store / "stray/deep/file").touch()
    repair(find_damage(store), view_set, small_teacher(view_set.manifest, dense=DENSE))
    assert content_of(store) == before
    assert linked.samefile(store / "points/region/c/1/0")
    assert not (store / "stray").exists()


def test_other_boxes_than_stored_are_refused(store: Path, view_set: ViewSet) -> None:
    damage = harm(store, "boxes/xyxy/c/0/0")
    fewer = replace(view_set, manifest=replace(view_set.manifest, images=view_set.manifest.images[:5]))
    with pytest.raises(CacheError, match="expected a table of views with sha256"):
        repair(damage, fewer, None)


def test_damage_of_dvcs_own_object_is_found_by_the_content_that_it_should_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert damaged_objects([]) == []
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    objects = tmp_path / ".dvc/cache/files/md5"
    for name, content in (("good", b"good"), ("bad", b"bad")):
        Path(name).write_bytes(content)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        (objects / md5[:2]).mkdir(parents=True)
        (objects / md5[:2] / md5[2:]).write_bytes(b"good")
    md5 = hashlib.md5(b"bad", usedforsecurity=False).hexdigest()
    assert damaged_objects([Path("good"), Path("bad")]) == [objects / md5[:2] / md5[2:]]


def test_a_workspace_that_makes_another_store_is_refused_with_both_values(
    store: Path, view_set: ViewSet
) -> None:
    damage = harm(store, "points/edge_codes/c/0/0", "points/region/c/0/0")
    (store / "stray").touch()
    harmed = content_of(store)
    finer = small_layout(view_set, LOSSLESS, dense=DENSE).schema.fingerprint
    difference = re.escape(f"precision.cls_step is {QUANTIZED.cls_step} in the store, but null here")
    with pytest.raises(CacheError, match=difference):
        repair(damage, view_set, None, fingerprint=finer)
    more = {**damage.schema.fingerprint, "novelty": 1}
    with pytest.raises(CacheError, match=r"novelty is \(absent\) in the store, but 1 here"):
        repair(damage, view_set, None, fingerprint=more)
    fewer = {name: value for name, value in damage.schema.fingerprint.items() if name != "regions"}
    with pytest.raises(CacheError, match=r"regions is \{.*\} in the store, but \(absent\) here"):
        repair(damage, view_set, None, fingerprint=fewer)
    assert content_of(store) == harmed


def test_what_comes_out_otherwise_is_not_put_in_place(store: Path, view_set: ViewSet) -> None:
    """Another teacher under the same name stands for hardware that gives other last bits."""
    damage = harm(store, "points/edge_codes/c/0/0", "points/region/c/0/0")
    harmed = content_of(store)
    done = repair(damage, view_set, small_teacher(view_set.manifest, seed=1, dense=DENSE))
    assert done == ["points/region/c/0/0"]
    assert content_of(store)["points/edge_codes/c/0/0"] == harmed["points/edge_codes/c/0/0"]
    with pytest.raises(
        CacheError, match=r"edge_codes/c/0/0 came out otherwise.*-samefile FILE -delete.*dvc pull"
    ):
        require_repaired(damage, done)
    assert [problem.file for problem in verify(store)] == ["points/edge_codes/c/0/0"]


def test_a_run_that_writes_the_same_store_is_waited_for(store: Path, view_set: ViewSet) -> None:
    damage = harm(store, "points/region/c/0/0")
    scratch = store.parent / "scratch" / digest(damage.schema.fingerprint)[:16]
    with lock_scratch(scratch), pytest.raises(CacheError, match="another run is writing"):
        repair(damage, view_set, small_teacher(view_set.manifest, dense=DENSE))
    assert scratch.is_dir()
    repair(damage, view_set, small_teacher(view_set.manifest, dense=DENSE))
    assert scratch.is_dir()
