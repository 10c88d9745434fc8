"""What a user does wrong gives one clear line, an exit code, and no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PREPARED = ("data", "teacher")

Params = dict[str, Any]


def run_stage(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and standard error of `python -m stages.NAME ...`."""
    finished = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        text=True,
        capture_output=True,
        check=False,
    )
    return finished.returncode, finished.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "recipes/smoke.yaml").read_text())
    return tmp_path


def change(folder: Path, edit: Callable[[Params], object]) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    edit(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def coco(folder: Path, annotations: object) -> None:
    """Point the parameters at a dataset with these annotations."""
    (folder / "dataset").mkdir()
    (folder / "dataset/instances.json").write_text(
        annotations if isinstance(annotations, str) else json.dumps(annotations)
    )
    split = {"annotations": "instances.json", "images": "images", "limit": None}
    values = {"shapes": None, "coco": {"root": "dataset", "train": split, "val": split}}
    change(folder, lambda params: params["prepare_data"].update(values))


def assert_one_line(result: tuple[int, str], *expected: str) -> None:
    code, stderr = result
    assert code == 1
    assert "Traceback" not in stderr
    last = stderr.strip().split("\n")[-1]
    assert last.startswith("error: ")
    for text in expected:
        assert text in last


IMAGE = {"id": 1, "file_name": "a.jpg", "height": 64, "width": 64}
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 30, 30], "area": 900, "iscrowd": 0}
DATASET = {"categories": [{"id": 1, "name": "x"}], "images": [IMAGE], "annotations": [BOX]}


def test_a_missing_dataset_folder(folder: Path) -> None:
    coco(folder, DATASET)
    change(folder, lambda params: params["prepare_data"]["coco"].update(root="nowhere"))
    assert_one_line(run_stage(folder, "stages.prepare_data"), "nowhere: expected the folder of a dataset")


def test_annotations_that_are_not_coco(folder: Path) -> None:
    coco(folder, {"images": []})
    assert_one_line(run_stage(folder, "stages.prepare_data"), "instances.json", "'categories'")


def test_a_missing_image(folder: Path) -> None:
    coco(folder, DATASET)
    assert_one_line(run_stage(folder, "stages.prepare_data"), "dataset/images/a.jpg: expected an image")


def test_an_output_that_cannot_be_written(folder: Path) -> None:
    (folder / "runs").write_text("a file where a folder should be")
    assert_one_line(run_stage(folder, "stages.prepare_data"), "runs")
    assert "Traceback" in run_stage(folder, "stages.prepare_data", LDP_LOG="DEBUG")[1]


def test_an_unknown_parameter(folder: Path) -> None:
    change(folder, lambda params: params["prepare_data"].update(colour=3))
    assert_one_line(run_stage(folder, "stages.prepare_data"), "params.yaml: prepare_data", "'colour'")


def test_a_stage_run_too_early(folder: Path) -> None:
    assert_one_line(run_stage(folder, "stages.prepare_teacher"), "run the stage prepare_data first")


def test_a_student_that_is_not_there(folder: Path) -> None:
    assert_one_line(run_stage(folder, "stages.train_student", "nobody"), "'students.nobody'")


def test_an_impossible_device(folder: Path) -> None:
    assert run_stage(folder, "stages.prepare_data")[0] == 0
    result = run_stage(folder, "stages.prepare_teacher", LDP_DEVICE="abacus")
    assert_one_line(result, "LDP_DEVICE", "'abacus'")


def test_an_unknown_log_level(folder: Path) -> None:
    assert_one_line(run_stage(folder, "stages.prepare_data", LDP_LOG="loud"), "LDP_LOG", "'LOUD'")


def test_an_unreadable_image_and_a_class_count_that_does_not_fit(folder: Path) -> None:
    assert run_stage(folder, "stages.prepare_data")[0] == 0
    (folder / "runs/smoke/data/rendered/train/000000000001.bmp").write_bytes(b"BM no image")
    assert_one_line(run_stage(folder, "stages.prepare_teacher"), "000000000001.bmp: expected an image")
    change(folder, lambda params: params["prepare_teacher"]["detector"].update(num_classes=5))
    result = run_stage(folder, "stages.prepare_teacher")
    assert_one_line(result, "num_classes: expected the dataset's 4 classes, but got 5")


def test_a_teachers_weights_that_do_not_fit(folder: Path) -> None:
    assert run_stage(folder, "stages.prepare_data")[0] == 0
    (folder / "weights.safetensors").write_bytes(b"nonsense")
    change(
        folder,
        lambda params: params["prepare_teacher"].update(source="weights.safetensors", views=None, train=None),
    )
    result = run_stage(folder, "stages.prepare_teacher")
    assert_one_line(result, "weights.safetensors: expected a safetensors file")
