"""Wrong weights, stores and results: one clear line and an exit code, and nothing computed is lost."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from finished import FOLDER, call, files_below
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
    params,
    removed,
    require_one_clear_line,
    spoil_weight,
    take_weights,
    written,
    wrong,
)

from recipes import LD, ROOT

DETECTORS = [
    wrong(
        "a student of another grid",
        "train_student ld",
        "students.ld.detector.levels: expected 3, as its teacher has, but got 4",
        edit=params(*LD, "detector", "levels", to=4),
    ),
    wrong(
        "a student of other bins",
        "train_student ld",
        "students.ld.detector.reg_max: expected 16, as its teacher has, but got 8",
        edit=params(*LD, "detector", "reg_max", to=8),
    ),
    wrong(
        "a student of other classes",
        "train_student ld",
        "students.ld.detector.num_classes: expected 4, as its teacher has, but got 3",
        edit=params(*LD, "detector", "num_classes", to=3),
    ),
    wrong(
        "a teacher of other classes",
        TEACHER,
        "students.plain.detector.num_classes: expected 5, as its teacher has, but got 4",
        edit=params(TEACHER, "detector", "num_classes", to=5),
    ),
    wrong("a teacher that is missing", CACHE, "expected a weights file", edit=removed(WEIGHTS)),
    wrong(
        "a teacher without its description",
        "evaluate teacher",
        "expected the description that belongs to teacher.safetensors, but there is none",
        edit=removed(WEIGHTS.with_suffix(".json")),
    ),
    wrong(
        "a damaged description",
        "verify_cache",
        "teacher.json: expected JSON, but it cannot be read",
        edit=written(WEIGHTS.with_suffix(".json"), "{"),
    ),
    wrong(
        "a description that is a list",
        "evaluate ld",
        "student.json: expected a description, but got []",
        edit=written(STUDENT.with_suffix(".json"), "[]"),
    ),
    wrong(
        "a cut weights file",
        "evaluate ld",
        "student.safetensors: expected a safetensors file, but it cannot be read",
        edit=cut(STUDENT, 5000),
    ),
    wrong("an empty weights file", "report", "expected a safetensors file", edit=written(STUDENT, b"")),
    wrong(
        "a teacher that says nothing",
        CACHE,
        "image_id=",
        "expected finite teacher outputs",
        edit=both(removed("scratch"), spoil_weight(WEIGHTS, 3e38, "bbox_head.gfl_reg.weight")),
    ),
    wrong(
        "weights that are no numbers",
        CACHE,
        "key 'bbox_head.gfl_reg.bias' has values that are not finite",
        edit=spoil_weight(WEIGHTS, float("nan")),
    ),
    wrong(
        "weights of another architecture",
        TEACHER,
        "prepare_teacher.detector.channels: expected 16, as",
        edit=both(take_weights(str(STUDENT)), params(TEACHER, "detector", "channels", to=32)),
    ),
    wrong(
        "a pickle that runs code, as a .pth",
        "ldp teacher import a.pth",
        "a.pth: expected a checkpoint of tensors and plain values",
        edit=malicious("a.pth"),
    ),
    wrong(
        "a raw pickle that runs code",
        "ldp teacher import a.pth",
        "a.pth: expected a checkpoint of tensors and plain values",
        edit=malicious_raw("a.pth"),
    ),
    wrong(
        "a pickle that runs code, as safetensors",
        TEACHER,
        "a.safetensors: expected a safetensors file",
        "ldp teacher import",
        edit=both(malicious("a.safetensors"), take_weights("a.safetensors")),
    ),
    wrong(
        "a pickle that runs code, as a student",
        "evaluate ld",
        "student.safetensors: expected a safetensors file",
        edit=malicious(str(STUDENT)),
    ),
    wrong(
        "a checkpoint of something else",
        "ldp teacher import a.pth",
        "a.pth: expected a GFL detector, but key 'neck",
        edit=lambda f: torch.save({"a": torch.zeros(2)}, f / "a.pth"),
    ),
    wrong("a checkpoint that is missing", "ldp teacher import none.pth", "none.pth: expected a checkpoint"),
    wrong(
        "a checkpoint that is a text",
        "ldp teacher import a.pth",
        "a.pth: expected a checkpoint of tensors",
        edit=written("a.pth", "hello"),
    ),
    wrong("an export of nothing", "ldp teacher export none.safetensors out.pth", "none.json: expected"),
]

STORES = [
    wrong("no store", "train_student ld", "expected a store at", "dvc pull", edit=removed(STORE)),
    wrong("a file as a store", "train_student ld", "but it is a file", edit=a_file_instead(STORE)),
    wrong(
        "an empty folder as a store",
        "verify_cache",
        "but it has no zarr.json",
        edit=both(removed(STORE), lambda f: (f / STORE).mkdir()),
    ),
    wrong(
        "a store of a newer format",
        "ldp store info",
        "expected a store of format_version 2 or 3, but got 99; update this code",
        edit=newer_store,
    ),
    wrong(
        "a store with a shard missing",
        "train_student ld",
        "is damaged: points/edge_codes/c/",
        "the file is missing",
        edit=lambda f: first_shard(f).unlink(),
    ),
    wrong(
        "a store with half a shard",
        "report",
        "is damaged: points/edge_codes/c/",
        "but got 4",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
    ),
    wrong(
        "a store with half a table",
        "train_student ld",
        "is damaged: views/extent",
        edit=cut(STORE / "views/extent/c/0/0", 20),
    ),
    wrong(
        "a store without attributes",
        "ldp store verify",
        "zarr.json is damaged, or not of a store of teacher outputs",
        edit=written(STORE / "zarr.json", "{}"),
    ),
    wrong(
        "a damaged store that is verified",
        "verify_cache",
        "1 damaged files, the first is points/edge_codes",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
    ),
    wrong(
        "a store of another teacher",
        "verify_cache",
        "the store was made from something else: teacher.weights",
        edit=lambda f: shutil.copy(f / STUDENT, f / WEIGHTS),
    ),
    wrong(
        "a store of other images",
        "report",
        "the store was made from something else",
        edit=lambda f: shutil.copytree(ROOT / "tests/store/format_3.zarr", f / STORE, dirs_exist_ok=True),
    ),
    wrong(
        "an unfinished store of another plan",
        CACHE,
        "cannot be continued: remove it, and run again",
        edit=lambda f: written(next((f / "scratch").glob("*/store.zarr/zarr.json")), "{}")(f),
    ),
]

RESULTS = [
    wrong(
        "a manifest that is missing",
        TEACHER,
        "expected a manifest; run the stage prepare_data first",
        edit=removed(FOLDER.manifest("train")),
    ),
    wrong(
        "a cut manifest",
        "evaluate ld",
        "val/manifest.json: expected a manifest, but it is damaged; run the stage prepare_data again",
        edit=cut(FOLDER.manifest("val"), 500),
    ),
    wrong(
        "metrics that are missing",
        "report",
        "evaluation/ld/summary.json: expected a result of an earlier stage; `dvc repro` makes it",
        edit=removed(FOLDER.summary("ld")),
    ),
    wrong(
        "cut metrics",
        "report",
        "evaluation/ld/summary.json: expected a result of an earlier stage, but it is damaged",
        edit=cut(FOLDER.summary("ld"), 9),
    ),
    wrong(
        "a damaged curve",
        "report",
        "precision_recall.csv: expected a result of an earlier stage, but it is damaged",
        edit=written(FOLDER.evaluation("ld") / "precision_recall.csv", "recall,iou\n1,x\n"),
    ),
    wrong(
        "damaged detections",
        "report",
        "detections.json: expected COCO results",
        edit=written(FOLDER.evaluation("ld") / "detections.json", "["),
    ),
]


@pytest.mark.parametrize("row", DETECTORS + STORES + RESULTS, ids=lambda row: row.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)


def test_a_store_that_is_too_coarse_leaves_its_figures_and_the_way_out(own_project: Path) -> None:
    params("verify_cache", "max_kl", to=0)(own_project)
    before = files_below(own_project)
    ended = call("verify_cache")
    assert ended.code == 1
    assert "fidelity: expected kl_mean of at most 0" in ended.error
    changed = {name for name, content in files_below(own_project).items() if before.get(name) != content}
    assert changed == {str(FOLDER.fidelity)}
    assert "no finer step keeps the bounds" in json.loads(FOLDER.fidelity.read_text())["remedy"]


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
