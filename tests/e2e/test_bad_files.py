"""Wrong weights, stores and results: one clear line and an exit code, and nothing computed is lost."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from finished import FOLDER, call
from wrong_input import (
    CACHE,
    STORE,
    STUDENT,
    TEACHER,
    WEIGHTS,
    Wrong,
    a_file_instead,
    both,
    cut,
    first_shard,
    malicious,
    malicious_raw,
    newer_store,
    not_a_number,
    params,
    removed,
    require_one_clear_line,
    take_weights,
    written,
)

from recipes import LD

DETECTORS = [
    Wrong(
        does="a student of another grid",
        edit=params(*LD, "detector", "levels", to=4),
        run="train_student ld",
        says=("the store was made from something else: geometry.strides",),
    ),
    Wrong(
        does="a student of other bins",
        edit=params(*LD, "detector", "reg_max", to=8),
        run="train_student ld",
        says=("the store was made from something else: geometry.bins is 17 in the store, but 9 is needed",),
    ),
    Wrong(
        does="a student of other classes",
        edit=params(*LD, "detector", "num_classes", to=3),
        run="train_student ld",
        says=("num_classes: expected the dataset's 4 classes, but got 3",),
    ),
    Wrong(
        does="a teacher of other classes",
        edit=params(TEACHER, "detector", "num_classes", to=5),
        run=TEACHER,
        says=("num_classes: expected the dataset's 4 classes, but got 5",),
    ),
    Wrong(
        does="a teacher that is missing", edit=removed(WEIGHTS), run=CACHE, says=("expected a weights file",)
    ),
    Wrong(
        does="a teacher without its description",
        edit=removed(WEIGHTS.with_suffix(".json")),
        run="evaluate teacher",
        says=("expected the description that belongs to teacher.safetensors, but there is none",),
    ),
    Wrong(
        does="a damaged description",
        edit=written(WEIGHTS.with_suffix(".json"), "{"),
        run="verify_cache",
        says=("teacher.json: expected JSON, but it cannot be read",),
    ),
    Wrong(
        does="a description that is a list",
        edit=written(STUDENT.with_suffix(".json"), "[]"),
        run="evaluate ld",
        says=("student.json: expected a description, but got []",),
    ),
    Wrong(
        does="a cut weights file",
        edit=cut(STUDENT, 5000),
        run="evaluate ld",
        says=("student.safetensors: expected a safetensors file, but it cannot be read",),
    ),
    Wrong(
        does="an empty weights file",
        edit=written(STUDENT, b""),
        run="report",
        says=("expected a safetensors file",),
    ),
    Wrong(
        does="a teacher that says nothing",
        edit=both(removed("scratch"), not_a_number(WEIGHTS)),
        run=CACHE,
        says=("image_id=", "expected finite teacher outputs"),
    ),
    Wrong(
        does="weights of another architecture",
        edit=both(take_weights(str(STUDENT)), params(TEACHER, "detector", "channels", to=32)),
        run=TEACHER,
        says=("the weights do not fit the architecture: key 'neck",),
    ),
    Wrong(
        does="a pickle that runs code, as a .pth",
        edit=malicious("a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors and plain values",),
    ),
    Wrong(
        does="a raw pickle that runs code",
        edit=malicious_raw("a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors and plain values",),
    ),
    Wrong(
        does="a pickle that runs code, as safetensors",
        edit=both(malicious("a.safetensors"), take_weights("a.safetensors")),
        run=TEACHER,
        says=("a.safetensors: expected a safetensors file", "ldp teacher import"),
    ),
    Wrong(
        does="a pickle that runs code, as a student",
        edit=malicious(str(STUDENT)),
        run="evaluate ld",
        says=("student.safetensors: expected a safetensors file",),
    ),
    Wrong(
        does="a checkpoint of something else",
        edit=lambda f: torch.save({"a": torch.zeros(2)}, f / "a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a GFL detector, but key 'neck",),
    ),
    Wrong(
        does="a checkpoint that is missing",
        run="ldp teacher import none.pth",
        says=("none.pth: expected a checkpoint",),
    ),
    Wrong(
        does="a checkpoint that is a text",
        edit=written("a.pth", "hello"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors",),
    ),
    Wrong(
        does="an export of nothing",
        run="ldp teacher export none.safetensors out.pth",
        says=("none.json: expected",),
    ),
]

STORES = [
    Wrong(
        does="no store", edit=removed(STORE), run="train_student ld", says=("expected a store at", "dvc pull")
    ),
    Wrong(
        does="a file as a store",
        edit=a_file_instead(STORE),
        run="train_student ld",
        says=("but it is a file",),
    ),
    Wrong(
        does="an empty folder as a store",
        edit=both(removed(STORE), lambda f: (f / STORE).mkdir()),
        run="verify_cache",
        says=("but it has no zarr.json",),
    ),
    Wrong(
        does="a store of a newer format",
        edit=newer_store,
        run="ldp store info",
        says=("expected a store of format_version 2, but got 99; update this code",),
    ),
    Wrong(
        does="a store with a shard missing",
        edit=lambda f: first_shard(f).unlink(),
        run="train_student ld",
        says=("is damaged: points/edge_codes/c/", "the file is missing"),
    ),
    Wrong(
        does="a store with half a shard",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
        run="report",
        says=("is damaged: points/edge_codes/c/", "but got 4"),
    ),
    Wrong(
        does="a store with half a table",
        edit=cut(STORE / "views/extent/c/0/0", 20),
        run="ldp trial ld --steps 1",
        says=("is damaged: views/extent",),
    ),
    Wrong(
        does="a store without attributes",
        edit=written(STORE / "zarr.json", "{}"),
        run="ldp store verify",
        says=("zarr.json is damaged, or not of a store of teacher outputs",),
    ),
    Wrong(
        does="a damaged store that is verified",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
        run="verify_cache",
        says=("1 damaged files, the first is points/edge_codes",),
    ),
    Wrong(
        does="a store of another teacher",
        edit=lambda f: shutil.copy(f / STUDENT, f / WEIGHTS),
        run="verify_cache",
        says=("the store was made from something else: teacher.weights",),
    ),
    Wrong(
        does="a store that is too coarse",
        edit=params("verify_cache", "max_kl", to=0),
        run="verify_cache",
        says=("fidelity: expected kl_mean of at most 0",),
    ),
    Wrong(
        does="an unfinished store of another plan",
        edit=lambda f: written(next((f / "scratch").glob("*/store.zarr/zarr.json")), "{}")(f),
        run=CACHE,
        says=("cannot be continued: remove it, and run again",),
    ),
]

RESULTS = [
    Wrong(
        does="a manifest that is missing",
        edit=removed(FOLDER.manifest("train")),
        run=TEACHER,
        says=("expected a manifest; run the stage prepare_data first",),
    ),
    Wrong(
        does="a cut manifest",
        edit=cut(FOLDER.manifest("val"), 500),
        run="evaluate ld",
        says=("val/manifest.json: expected a manifest, but it is damaged; run the stage prepare_data again",),
    ),
    Wrong(
        does="metrics that are missing",
        edit=removed(FOLDER.summary("ld")),
        run="report",
        says=("evaluation/ld/summary.json: expected a result of an earlier stage; `dvc repro` makes it",),
    ),
    Wrong(
        does="cut metrics",
        edit=cut(FOLDER.summary("ld"), 9),
        run="report",
        says=("evaluation/ld/summary.json: expected a result of an earlier stage, but it is damaged",),
    ),
    Wrong(
        does="a damaged curve",
        edit=written(FOLDER.evaluation("ld") / "precision_recall.csv", "recall,iou\n1,x\n"),
        run="report",
        says=("precision_recall.csv: expected a result of an earlier stage, but it is damaged",),
    ),
    Wrong(
        does="damaged detections",
        edit=written(FOLDER.evaluation("ld") / "detections.json", "["),
        run="report",
        says=("detections.json: expected COCO results",),
    ),
]


@pytest.mark.parametrize("wrong", DETECTORS + STORES + RESULTS, ids=lambda wrong: wrong.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, wrong: Wrong) -> None:
    require_one_clear_line(wrong, own_project)


def test_a_file_that_would_run_code_does_not(own_project: Path) -> None:
    """In whatever place it is offered; the same file does run its code where it is unpickled."""
    for path in ("a.pth", "a.safetensors", str(STUDENT)):
        malicious(path)(own_project)
    malicious_raw("raw.pth")(own_project)
    take_weights("a.safetensors")(own_project)
    for command in (
        "ldp teacher import a.pth",
        "ldp teacher import raw.pth",
        TEACHER,
        "evaluate ld",
        "report",
    ):
        assert call(command).code == 1
    assert not Path("code-ran").exists()
    pickle.loads(Path("raw.pth").read_bytes())
    assert Path("code-ran").exists()


@pytest.mark.usefixtures("own_project")
def test_a_store_that_may_only_be_read_is_read() -> None:
    paths = [FOLDER.store, *FOLDER.store.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for command in (
            "train_student ld",
            "verify_cache",
            "ldp store info",
            "ldp store verify",
            "ldp store show 1",
        ):
            assert call(command).code == 0
    finally:
        for path in paths:
            path.chmod(0o755)
