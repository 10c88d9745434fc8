"""A whole parameter file: what one section says must fit the others, and is refused before anything runs."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.cli.params import check_images, check_machine, check_params
from pipeline.core.errors import ConfigError
from recipes import ROOT, Params, given_teacher, set_value, smoke_params, tiny_params

PARAMS = Path("params.yaml")
MISFITS = """
    students.ld.detector.num_classes = 5 | num_classes: expected 4, as its teacher has
    students.ld.detector.levels = 4 | students.ld.detector.levels: expected 3
    student.detector.reg_max = 7 | students.ld.detector.reg_max: expected 16
    students.ld.validation.split = val | students.ld.validation
    student.validation = {} | student.validation.split: expected 'train' or 'val' for all students
    student.validation = null | student.validation.split: expected 'train' or 'val' for all students
    student.train.warmup_steps = 12 | ld.train.warmup_steps: expected fewer than the 12
    cache_teacher.views = {epochs: 1, long_edge: 64, short_edges: [64, 64]} | the 1 of views
    students.ld.loss.vlr_kd_weight = 1.0 | cache_teacher.valuable_classes: expected true for the term vlr_kd
    students.ld.detector.num_classes = 1 | ld.loss.kd_weight: expected 0 for one class
    file = recipes/other/params.yaml | file: expected 'params.yaml', but got 'recipes/other
    root = ../.. | root: expected '.', but got '../..'
    colour = 1 | unknown section 'colour'
    """
"""A key of the smoke recipe, another value as YAML, and the error."""


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Params], None]:
    """Check these parameters at the top of an empty repository."""
    monkeypatch.chdir(tmp_path)

    def check(params: Params) -> None:
        PARAMS.write_text(yaml.safe_dump(params))
        check_machine(check_params(PARAMS))

    return check


@pytest.mark.parametrize("row", [line.strip() for line in MISFITS.strip().splitlines()])
def test_a_section_that_does_not_fit_is_named(check: Callable[[Params], None], row: str) -> None:
    change, _, message = row.partition(" | ")
    key, _, value = change.partition(" = ")
    params = smoke_params()
    params["students"] = {"ld": params["students"]["ld"] | {"validation": {"split": "train"}}}
    check(params)
    set_value(params, tuple(key.split(".")), yaml.safe_load(value))
    with pytest.raises(ConfigError, match=rf"^params\.yaml: .*{re.escape(message)}"):
        check(params)


def test_a_batch_of_one_has_more_than_one_cell(check: Callable[[Params], None]) -> None:
    """BatchNorm has no variance of one value."""
    params = smoke_params()
    set_value(params, ("student", "train", "batch_size"), 1)
    check(params)
    set_value(params, ("cache_teacher", "views", "scales"), [[64, 32]])
    with pytest.raises(ConfigError, match=r"students\.\w+\.train\.batch_size: expected 2 or more where"):
        check(params)


def test_trainings_longer_than_their_images_are_refused_when_these_are_counted(
    check: Callable[[Params], None],
) -> None:
    check(smoke_params())
    check_images(PARAMS, 16)
    for images, message in ((8, "warmup_steps: expected fewer than the 2"), (7, "at most the 7 training")):
        with pytest.raises(ConfigError, match=message):
            check_images(PARAMS, images)


def test_a_student_of_an_onnx_teacher_has_its_bins_and_the_views_its_input(
    check: Callable[[Params], None],
) -> None:
    params = yaml.safe_load((ROOT / "recipes/coco_sample_nanodet/params.yaml").read_text())
    params |= {"root": ".", "file": "params.yaml", "prepare_data": smoke_params()["prepare_data"]}
    for file, content in (
        (
            "recipes/teachers/nanodet_plus_m_416.yaml",
            (ROOT / "recipes/teachers/nanodet_plus_m_416.yaml").read_text(),
        ),
        ("datasets/models/nanodet-plus-m_416.onnx", ""),
    ):
        with pytest.raises(ConfigError, match=rf"expected .*{Path(file).name}, but there is none"):
            check(params)
        Path(file).parent.mkdir(parents=True)
        Path(file).write_text(content)
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
    given_teacher(params, "weights/a.safetensors")
    with pytest.raises(ConfigError, match=r"source: expected weights/a\.safetensors, .*`ldp teacher import`"):
        check(params)


@pytest.mark.parametrize("module", ["pipeline.cli.params", "pipeline.cli.recipe", "pipeline.cli.main"])
def test_checking_a_file_loads_neither_torch_nor_zarr(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'zarr', 'dask', 'PIL'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
