"""``ldp recipe``: recipes are listed, made and checked, and no edit is ever lost."""

import shutil
import sys
from pathlib import Path

import pytest
from finished import call
from project import write_tiny_dataset

from pipeline.cli.main import main
from pipeline.cli.params import check_images, check_machine, check_params
from pipeline.core.config import read_sections
from pipeline.core.paths import find_recipe
from recipes import DATASET, ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipes and the default parameters."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", symlinks=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ldp(*arguments: str) -> str | None:
    """Run ``ldp``; its error, if it ends with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ldp", *arguments])
        try:
            main()
        except SystemExit as ended:
            return str(ended.code)
    return None


def test_the_list_has_a_line_for_each_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ldp("recipe") is None
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["shapes", *sorted(path.parent.name for path in folder.glob("recipes/*/params.yaml"))]


@pytest.mark.usefixtures("folder")
def test_a_recipe_is_given_by_name_folder_or_file() -> None:
    smoke = Path("recipes/smoke/params.yaml")
    assert {find_recipe(given) for given in ("smoke", "recipes/smoke", str(smoke))} == {smoke}
    assert find_recipe("shapes") == find_recipe(".") == Path("params.yaml")
    assert "expected a name (shapes, coco_r101_1x, " in (ldp("recipe", "check", "nothing") or "")


def test_a_new_recipe_is_another_under_its_own_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("recipes/smoke/params.yaml").read_text()
    assert ldp("recipe", "new", "mine", "--from", "smoke") is None
    assert ldp("recipe", "check", "mine") is None
    assert "dvc repro recipes/mine/dvc.yaml" in capsys.readouterr().out
    mine, smoke = (read_sections(Path(f"recipes/{name}/params.yaml")) for name in ("mine", "smoke"))
    assert mine == smoke | {"name": "mine", "file": "recipes/mine/params.yaml"}
    assert Path("recipes/mine/dvc.yaml").read_bytes() == (folder / "dvc.yaml").read_bytes()
    assert Path("recipes/smoke/params.yaml").read_text() == before


@pytest.mark.usefixtures("folder")
def test_dvc_knows_a_recipe_once_it_is_added(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path("recipes/smoke/dvc.yaml")
    assert ldp("recipe", "check", "smoke") is None
    assert "`ldp recipe add smoke` and `dvc repro recipes/smoke/dvc.yaml`" in capsys.readouterr().out
    for _ in range(2):
        assert ldp("recipe", "add", "smoke") is None
        assert copy.read_bytes() == Path("dvc.yaml").read_bytes()
    check = "check_recipe --params recipes/smoke/params.yaml"
    assert (call(check).code, caplog.text) == (0, "")
    copy.write_text("stages: {}  # edited\n")
    for action in ("add", "check"):
        assert "`cp dvc.yaml recipes/smoke/dvc.yaml` replaces them" in (ldp("recipe", action, "smoke") or "")
    assert call(check).code == 0
    assert "`cp dvc.yaml recipes/smoke/dvc.yaml` replaces them" in caplog.text
    assert copy.read_text() == "stages: {}  # edited\n"


@pytest.mark.usefixtures("folder")
def test_nothing_is_ever_overwritten() -> None:
    assert ldp("recipe", "new", "mine", "--from", "shapes") is None
    Path("recipes/mine/params.yaml").write_text("# edited\n")
    for name in ("mine", "smoke"):
        before = Path(f"recipes/{name}/params.yaml").read_text()
        assert "never overwritten" in (ldp("recipe", "new", name, "--from", "coco_sample") or "")
        assert Path(f"recipes/{name}/params.yaml").read_text() == before
    for name in ("../mine", "a b", ""):
        assert "expected a name of letters, digits, _ and -" in (
            ldp("recipe", "new", name, "--from", "smoke") or ""
        )


def test_a_recipe_for_a_coco_folder_is_filled_in_and_valid(folder: Path) -> None:
    write_tiny_dataset(folder)
    assert ldp("recipe", "new", "own", "--from", str(DATASET)) is None
    recipe = check_params(Path("recipes/own/params.yaml"))
    check_machine(recipe)
    check_images(recipe.path, 6)  # of 8 images 6 have an object
    assert recipe.data.source == str(DATASET)
    assert recipe.data.coco is not None
    assert (recipe.data.coco.root, recipe.data.coco.val.images) == (str(DATASET), "val")
    assert recipe.teacher.detector is not None
    assert recipe.teacher.detector.num_classes == 4
    assert recipe.cache.views.scales == (recipe.evaluate.scale,) == ((64, 64),)
    assert 0 < recipe.evaluate.area_edges[0] < recipe.evaluate.area_edges[1] < 64


@pytest.mark.usefixtures("folder")
def test_a_folder_that_is_no_dataset_is_refused_and_nothing_is_made() -> None:
    Path("images/annotations").mkdir(parents=True)
    error = ldp("recipe", "new", "own", "--from", "images") or ""
    assert "images: expected one annotations/instances_train*.json" in error
    assert not Path("recipes/own").exists()
