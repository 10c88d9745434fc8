"""Wrong weights, stores and results: one clear line and an exit code, and nothing computed is lost."""

import pickle
import shutil
from pathlib import Path

import pytest
from finished import FOLDER, call
from wrong_input import (
    CACHE,
    STORE,
    STUDENT,
    TEACHER,
    WEIGHTS,
    Wrong,
    both,
    malicious,
    malicious_raw,
    params,
    removed,
    require_one_clear_line,
    spoil_weight,
    spoiled,
    take_weights,
    written,
    wrong,
)

from recipes import ROOT

SPOILED = """
    cache_teacher | - | teacher/model/teacher.safetensors | expected a weights file
    evaluate teacher | - | teacher/model/teacher.json | expected the description that belongs to
    verify_cache | { | teacher/model/teacher.json | teacher.json: expected a description, but
    evaluate ld | [] | students/ld/model/student.json | expected a description, but it cannot be read
    evaluate ld | :5000 | students/ld/model/student.safetensors | student.safetensors: expected a safetensors
    report | :0 | students/ld/model/student.safetensors | expected a safetensors file
    train_student ld | - | cache/targets.zarr | expected a store at
    train_student ld | - | cache/targets.zarr/points/edge_codes/c/0/0 | edge_codes/c/0/0: the file is missing
    report | half | cache/targets.zarr/points/edge_codes/c/0/0 | but got 4
    verify_cache | half | cache/targets.zarr/points/edge_codes/c/0/0 | 1 damaged files, the first is points
    train_student ld | :20 | cache/targets.zarr/views/extent/c/0/0 | is damaged: views/extent
    ldp store verify | {} | cache/targets.zarr/zarr.json | zarr.json is damaged, or not of a store
    prepare_teacher | - | data/train/manifest.json | expected a manifest; run the stage prepare_data first
    evaluate ld | :500 | data/val/manifest.json | damaged; run the stage prepare_data again
    report | - | evaluation/ld/summary.json | result of an earlier stage; `dvc repro dvc.yaml` makes it
    report | :9 | evaluation/ld/summary.json | expected a result of an earlier stage, but it is damaged
    report | {"seconds": "fast"} | students/ld/timing.json | timing.json: expected a result of an earlier
    report | [ | evaluation/ld/detections.json | detections.json: expected a result of an earlier
    """
"""A stage, what has become of an output (removed, cut to so many bytes, written over), and the error."""

OTHERS = [
    wrong(
        CACHE,
        "image_id=",
        "expected finite teacher outputs",
        edit=both(removed("scratch"), spoil_weight(WEIGHTS, 3e38, "bbox_head.gfl_reg.weight")),
    ),
    wrong(CACHE, "bias' has values that are not finite", edit=spoil_weight(WEIGHTS, float("nan"))),
    wrong(
        TEACHER,
        "prepare_teacher.detector.channels: expected 16, as",
        edit=both(take_weights(str(STUDENT)), params(TEACHER, "detector", "channels", to=32)),
    ),
    wrong(
        "report",
        "precision_recall.csv: expected a result of an earlier stage, but it is damaged",
        edit=written(FOLDER.evaluation("ld") / "precision_recall.csv", "recall,iou\n1,x\n"),
    ),
    wrong("ldp teacher export none.safetensors out.pth", "none.json: expected"),
    wrong(
        "verify_cache",
        "the store was made from something else: teacher.weights",
        edit=lambda f: shutil.copy(f / STUDENT, f / WEIGHTS),
    ),
    wrong(
        "report",
        "the store was made from something else",
        edit=lambda f: shutil.copytree(ROOT / "tests/store/format_3.zarr", f / STORE, dirs_exist_ok=True),
    ),
    wrong(
        CACHE,
        "cannot be continued: remove it, and run again",
        edit=lambda f: written(next((f / "scratch").glob("*/store.zarr/zarr.json")), "{}")(f),
    ),
]


def rows() -> list[Wrong]:
    found = []
    for line in SPOILED.strip().splitlines():
        stage, how, name, says = line.strip().split(" | ")
        found.append(wrong(stage, says, edit=spoiled(FOLDER.root / name, how)))
    return found


@pytest.mark.parametrize("row", rows() + OTHERS, ids=str)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)


def test_a_store_that_is_too_coarse_leaves_its_figures_and_the_way_out(own_project: Path) -> None:
    params("verify_cache", "max_kl", to=0)(own_project)
    FOLDER.fidelity.unlink()
    ended = call("verify_cache")
    assert ended.code == 1
    assert "fidelity: expected kl_mean of at most 0" in ended.error
    assert "choose finer steps in cache_teacher.precision" in ended.error
    assert FOLDER.fidelity.is_file()


def test_a_file_that_would_run_code_does_not(own_project: Path) -> None:
    """In whatever place it is offered; the same file does run its code where it is unpickled."""
    for path in ("a.pth", "a.safetensors", str(STUDENT)):
        malicious(path)(own_project)
    malicious_raw("raw.pth")(own_project)
    take_weights("a.safetensors")(own_project)
    for command, says in {
        "ldp teacher import a.pth": "a.pth: expected a checkpoint of tensors and plain values",
        "ldp teacher import raw.pth": "raw.pth: expected a checkpoint of tensors and plain values",
        TEACHER: "a.safetensors: expected a safetensors file",
        "evaluate ld": "student.safetensors: expected a safetensors file",
        "report": "student.safetensors: expected a safetensors file",
    }.items():
        ended = call(command)
        assert ended.code == 1
        assert says in ended.error
    assert not Path("code-ran").exists()
    pickle.loads(Path("raw.pth").read_bytes())
    assert Path("code-ran").exists()


@pytest.mark.usefixtures("own_project")
def test_a_store_that_may_only_be_read_is_read() -> None:
    paths = [FOLDER.store, *FOLDER.store.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for command in ("train_student ld", "verify_cache", "ldp store info", "ldp store show 1"):
            assert call(command).code == 0
    finally:
        for path in paths:
            path.chmod(0o755)
