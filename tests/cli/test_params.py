"""A whole parameter file: what of it is seen only beside other files.

Sections that do not fit each other are rows of ``e2e/wrong_input.txt``.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.cli.params import check_machine, check_params
from pipeline.core.errors import ConfigError
from recipes import ROOT, Params, set_value, smoke_params

PARAMS = Path("params.yaml")


def check(params: Params) -> None:
    """Check these parameters in the current folder."""
    PARAMS.write_text(yaml.safe_dump(params))
    check_machine(check_params(PARAMS))


def test_trainings_longer_than_their_images_are_refused_where_these_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are rendered; once they are counted, stages refuse, too."""
    monkeypatch.chdir(tmp_path)
    params = smoke_params()
    set_value(params, ("student", "train", "warmup_steps"), 12)
    with pytest.raises(ConfigError, match=r"warmup_steps: expected fewer than the 12 steps"):
        check(params)


def test_a_student_of_an_onnx_teacher_has_its_bins_and_the_views_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "recipes/coco_sample_nanodet/params.yaml").read_text())
    params |= {"root": ".", "file": "params.yaml", "prepare_data": smoke_params()["prepare_data"]}
    for file in ("recipes/teachers/nanodet_plus_m_416.yaml", "datasets/models/nanodet-plus-m_416.onnx"):
        with pytest.raises(ConfigError, match=rf"expected .*{Path(file).name}, but there is none"):
            check(params)
        Path(file).parent.mkdir(parents=True)
        Path(file).write_text((ROOT / file).read_text() if file.endswith(".yaml") else "")
    check(params)
    set_value(params, ("evaluate", "scale"), [320, 320])
    with pytest.raises(ConfigError, match=r"evaluate\.scale: expected \[416, 416\], the teacher's input"):
        check(params)
    set_value(params, ("student", "detector", "reg_max"), 16)
    with pytest.raises(ConfigError, match=r"students\.ld\.detector\.reg_max: expected 7"):
        check(params)


@pytest.mark.parametrize("module", ["pipeline.cli.params", "pipeline.cli.recipe", "pipeline.cli.main"])
def test_checking_a_file_loads_neither_torch_nor_zarr(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'zarr', 'dask', 'PIL'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
