"""Repair with a live teacher: the same bytes again, of damaged partitions only, and of no other store."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from store_cases import content_of, flip_middle
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set

from pipeline.cli.store_repair import damaged_objects, repair_store
from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import CacheError
from pipeline.core.files import digest, lock_scratch
from pipeline.core.paths import SCRATCH
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.schema import EARLIER_COMPRESSION_LEVEL
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.extractor import DecodedBatch, LogitExtractor, PendingTargets, ViewBatch
from pipeline.teacher.run import write_store

DENSE = DensePrecision()
IMAGES = 6
"""Twelve views in three partitions."""
SHARD, TABLE = "points/edge_codes/c/0/0", "boxes/xyxy/c/0/0"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    view_set = small_view_set(folder, IMAGES)
    layout = small_layout(view_set, QUANTIZED, dense=DENSE)
    write_store(
        replace(layout, schema=replace(layout.schema, compression_level=EARLIER_COMPRESSION_LEVEL)),
        view_set,
        small_teacher(view_set.manifest, dense=DENSE),
        scratch_root=folder / "scratch",
        output=folder / "targets.zarr",
    )
    return folder


@pytest.fixture
def store(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TargetStore:
    """In the current folder, opened before it is damaged."""
    monkeypatch.chdir(tmp_path)
    return TargetStore.open(shutil.copytree(written / "targets.zarr", tmp_path / "targets.zarr"))


@pytest.fixture
def view_set(written: Path) -> ViewSet:
    return small_view_set(written, IMAGES)


def repair(store: TargetStore, views: ViewSet, teacher: int | None = None, **changes: Any) -> None:
    """Repair with a teacher of a seed, or with none, from the inputs of the store or from others."""

    def load_teacher(_device: object) -> LogitExtractor:
        assert teacher is not None, "nothing here needs the teacher"
        return small_teacher(views.manifest, teacher, dense=DENSE)

    given = {"view_set": views, "fingerprint": store.fingerprint, "load_teacher": load_teacher} | changes
    repair_store(store.path, lambda: SimpleNamespace(**given))


def test_the_teacher_sees_the_views_of_damaged_partitions_alone(
    store: TargetStore, view_set: ViewSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = content_of(store.path), []
    forward = LogitExtractor.forward

    def record(self: LogitExtractor, images: DecodedBatch, batch: ViewBatch) -> PendingTargets:
        seen.extend(view.key for view in batch.views)
        return forward(self, images, batch)

    monkeypatch.setattr(LogitExtractor, "forward", record)
    for names in (("views/extent/c/0/0", "boxes/xyxy/zarr.json"), ("main/cls_codes/c/1/0", TABLE)):
        assert seen == []
        for name in names:
            flip_middle(store.path / name)
        repair(store, view_set, teacher=0 if "main" in names[0] else None)
        assert content_of(store.path) == before
    assert sorted(seen) == list(store.keys[4:8])
    assert not list(SCRATCH.iterdir())


def test_what_is_missing_or_a_folder_comes_back_by_a_rename(store: TargetStore, view_set: ViewSet) -> None:
    before, linked = content_of(store.path), store.path.parent / "cached"
    for name in (SHARD, "dense/cls_codes/c/1/0", "views/image_id/c/0"):
        (store.path / name).unlink()
    (store.path / SHARD / "inner").mkdir(parents=True)
    os.link(store.path / "points/region/c/1/0", linked)
    (store.path / "stray/deep").mkdir(parents=True)
    (store.path / "stray/deep/file").touch()
    repair(store, view_set, teacher=0)
    assert content_of(store.path) == before
    assert linked.samefile(store.path / "points/region/c/1/0")


def test_what_makes_another_store_is_refused_with_both_values(store: TargetStore, view_set: ViewSet) -> None:
    flip_middle(store.path / SHARD)
    flip_middle(store.path / TABLE)
    (store.path / "stray").touch()
    harmed, here = content_of(store.path), dict(store.fingerprint)
    finer = small_layout(view_set, LOSSLESS, dense=DENSE).schema.fingerprint
    fewer = replace(view_set, manifest=replace(view_set.manifest, images=view_set.manifest.images[:5]))
    for changes, message in (
        ({"fingerprint": finer}, f"precision.cls_step is {QUANTIZED.cls_step} in the store, but null here"),
        ({"fingerprint": here | {"novelty": 1}}, r"novelty is \(absent\) in the store, but 1 here"),
        ({"fingerprint": here | {"regions": 0}}, r"regions is \{.*\} in the store, but 0 here"),
        ({"view_set": fewer}, "expected a table of views with sha256"),
    ):
        with pytest.raises(CacheError, match=message):
            repair(store, view_set, **changes)
    assert content_of(store.path) == harmed


def test_what_comes_out_otherwise_is_not_put_in_place(store: TargetStore, view_set: ViewSet) -> None:
    """Another teacher under the same name stands for hardware that gives other last bits."""
    before = content_of(store.path)
    for name in (SHARD, "points/region/c/0/0"):
        flip_middle(store.path / name)
    harmed = content_of(store.path)[SHARD]
    with pytest.raises(CacheError, match=r"edge_codes/c/0/0 came out otherwise.*dvc pull"):
        repair(store, view_set, teacher=1)
    assert content_of(store.path) == before | {SHARD: harmed}


def test_a_run_that_writes_the_same_store_is_waited_for(store: TargetStore, view_set: ViewSet) -> None:
    flip_middle(store.path / SHARD)
    scratch = SCRATCH / digest(store.fingerprint)[:16]
    with lock_scratch(scratch), pytest.raises(CacheError, match="another run is writing"):
        repair(store, view_set, teacher=0)
    repair(store, view_set, teacher=0)
    assert scratch.is_dir(), "it was there before"


def test_damage_of_dvcs_own_object_is_found_by_the_content_that_it_should_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], check=True)
    places = {}
    for name in ("good", "bad"):
        Path(name).write_text(name)
        md5 = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
        places[name] = tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        places[name].parent.mkdir(parents=True)
        places[name].write_text("good")
    assert damaged_objects([]) == []
    assert damaged_objects([Path("good"), Path("bad")]) == [places["bad"]]
