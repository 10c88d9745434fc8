"""A whole parameter file: what one section says must fit the others, and is refused before anything runs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli.params import check_images, check_machine, check_params
from pipeline.core.errors import ConfigError
from recipes import ROOT, Params, set_value, smoke_params, tiny_params

Edit = tuple[tuple[str, ...], Any]
ONNX = "recipes/teachers/nanodet_plus_m_416.yaml"


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Params], None]:
    """Check these parameters at the top of an empty repository."""
    monkeypatch.chdir(tmp_path)

    def check(params: Params) -> None:
        Path("params.yaml").write_text(yaml.safe_dump(params))
        check_machine(check_params(Path("params.yaml")))

    return check


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("students", "ld", "detector", "num_classes"), 5, "num_classes: expected 4, as its teacher has"),
        (("students", "ld", "detector", "levels"), 4, "students.ld.detector.levels: expected 3"),
        (("student", "detector", "reg_max"), 7, "students.ld.detector.reg_max: expected 16"),
        (("students", "ld", "validation", "split"), "val", "students.ld.validation"),
        (("student", "train", "warmup_steps"), 12, "ld.train.warmup_steps: expected fewer than the 12"),
        (("prepare_teacher", "train", "batch_size"), 49, "expected at most the 48 training images"),
        (("prepare_teacher", "train", "warmup_steps"), 99, "prepare_teacher.train.warmup_steps: "),
        (
            ("cache_teacher", "views"),
            {"epochs": 1, "long_edge": 64, "short_edges": [64, 64]},
            "the 1 of views",
        ),
        (
            ("students", "ld", "loss", "vlr_kd_weight"),
            1.0,
            "cache_teacher.valuable_classes: expected true for the term vlr_kd of students.ld",
        ),
        (("students", "ld", "detector", "num_classes"), 1, "ld.loss.kd_weight: expected 0 for one class"),
        (("file",), "recipes/other/params.yaml", "file: expected 'params.yaml', but got 'recipes/other"),
        (("root",), "../..", "root: expected '.', but got '../..'"),
        (("students", "x; touch pwned; true"), {}, "students: expected names of letters, digits, _ and -"),
        (("verify_cache", "temperature"), 3.0, "verify_cache: unknown key 'temperature'"),
        (("colour",), 1, "unknown section 'colour'"),
        (("students", "ld", "loss", "ld_weight"), "1e-05x", "students.ld.loss.ld_weight: expected a number"),
    ],
)
def test_a_section_that_does_not_fit_is_named(
    check: Callable[[Params], None], keys: tuple[str, ...], value: object, message: str
) -> None:
    params = smoke_params()
    check(params)
    set_value(params, keys, value)
    with pytest.raises(ConfigError) as caught:
        check(params)
    assert str(caught.value).startswith("params.yaml: ")
    assert message in str(caught.value)
    assert not Path("pwned").exists()


def test_a_batch_of_one_has_more_than_one_cell(check: Callable[[Params], None]) -> None:
    """BatchNorm has no variance of one value."""
    params = smoke_params()
    set_value(params, ("student", "train", "batch_size"), 1)
    check(params)
    set_value(params, ("cache_teacher", "views", "scales"), [[64, 32]])
    with pytest.raises(ConfigError, match=r"students\.ld\.train\.batch_size: expected 2 or more where"):
        check(params)


@pytest.mark.parametrize("shared", [{}, {"validation": None}])
def test_the_split_that_all_students_are_validated_on_stands_in_student(
    check: Callable[[Params], None], shared: Params
) -> None:
    params = smoke_params()
    del params["student"]["validation"]
    params["student"] |= shared
    params["students"] = {"plain": {"validation": {"split": "train"}}}
    with pytest.raises(ConfigError, match=r"yaml: student\.validation\.split: expected 'train' or 'val'"):
        check(params)


def test_trainings_longer_than_their_images_are_refused_when_these_are_counted(
    check: Callable[[Params], None],
) -> None:
    params = smoke_params()
    check(params)
    check_images(Path("params.yaml"), 16)
    for images, message in ((8, "warmup_steps: expected fewer than the 2"), (7, "at most the 7 training")):
        with pytest.raises(ConfigError, match=message):
            check_images(Path("params.yaml"), images)


def test_a_student_of_an_onnx_teacher_has_its_bins_and_the_views_its_input(
    check: Callable[[Params], None], tmp_path: Path
) -> None:
    (tmp_path / ONNX).parent.mkdir(parents=True)
    (tmp_path / ONNX).write_text((ROOT / ONNX).read_text())
    params = yaml.safe_load((ROOT / "recipes/coco_sample_nanodet/params.yaml").read_text())
    params |= {"root": ".", "file": "params.yaml", "prepare_data": smoke_params()["prepare_data"]}
    with pytest.raises(ConfigError, match=r"file: expected .*datasets/models/nanodet-plus"):
        check(params)
    (tmp_path / "datasets/models").mkdir(parents=True)
    (tmp_path / "datasets/models/nanodet-plus-m_416.onnx").touch()
    check(params)
    set_value(params, ("evaluate", "scale"), [320, 320])
    with pytest.raises(ConfigError, match=r"evaluate\.scale: expected \[416, 416\], the teacher's input"):
        check(params)
    set_value(params, ("student", "detector", "reg_max"), 16)
    with pytest.raises(ConfigError, match=r"students\.ld\.detector\.reg_max: expected 7"):
        check(params)


def test_images_and_a_teacher_that_are_not_here_are_named(check: Callable[[Params], None]) -> None:
    with pytest.raises(ConfigError, match=r"expected datasets/tiny, but there is none; link the"):
        check(tiny_params())
    params = smoke_params()
    del params["prepare_teacher"]["views"], params["prepare_teacher"]["train"]
    params["prepare_teacher"]["source"] = "weights/a.safetensors"
    with pytest.raises(ConfigError, match=r"source: expected weights/a\.safetensors, .*`ldp teacher import`"):
        check(params)


@pytest.mark.parametrize("module", ["pipeline.cli.params", "pipeline.cli.recipe", "pipeline.cli.main"])
def test_checking_a_file_loads_neither_torch_nor_zarr(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'zarr', 'dask', 'PIL'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
