"""``ldp recipe``: recipes are listed, made and checked, and no edit is ever lost."""

import shutil
from pathlib import Path

import pytest
from finished import Ended, call
from project import write_tiny_dataset

from pipeline.cli.params import check_images, check_machine, check_params
from pipeline.core.config import read_sections
from pipeline.core.paths import find_recipe
from recipes import DATASET, ROOT

DONE = Ended(code=0, error="")
SMOKE = Path("recipes/smoke/params.yaml")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the recipes and the default parameters; none has been added."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("dvc.*"))
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_are_listed_and_given_by_name_folder_or_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ldp recipe") == DONE
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["shapes", *sorted(path.parent.name for path in Path().glob("recipes/*/params.yaml"))]
    assert {find_recipe(given) for given in ("smoke", "recipes/smoke", str(SMOKE))} == {SMOKE}
    assert find_recipe("shapes") == find_recipe(".") == Path("params.yaml")
    assert "expected a name (shapes, coco_r101_1x, " in call("ldp recipe check nothing").error


def test_a_new_recipe_is_another_under_its_own_name(capsys: pytest.CaptureFixture[str]) -> None:
    before = SMOKE.read_text()
    assert call("ldp recipe new mine --from smoke") == call("ldp recipe check mine") == DONE
    assert "dvc repro recipes/mine/dvc.yaml" in capsys.readouterr().out
    mine = read_sections(Path("recipes/mine/params.yaml"))
    assert mine == read_sections(SMOKE) | {"name": "mine", "file": "recipes/mine/params.yaml"}
    assert Path("recipes/mine/dvc.yaml").read_bytes() == Path("dvc.yaml").read_bytes()
    assert SMOKE.read_text() == before


def test_dvc_knows_a_recipe_once_it_is_added(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    copy, check = Path("recipes/smoke/dvc.yaml"), f"check_recipe --params {SMOKE}"
    assert call("ldp recipe check smoke") == DONE
    assert "`ldp recipe add smoke` and `dvc repro recipes/smoke/dvc.yaml`" in capsys.readouterr().out
    for _ in range(2):
        assert call("ldp recipe add smoke") == DONE
        assert copy.read_bytes() == Path("dvc.yaml").read_bytes()
    assert (call(check).code, caplog.text) == (0, "")
    copy.write_text("stages: {}  # edited\n")
    advice = "`cp dvc.yaml recipes/smoke/dvc.yaml` replaces them"
    assert all(advice in call(f"ldp recipe {action} smoke").error for action in ("add", "check"))
    assert call(check).code == 0
    assert advice in caplog.text
    assert copy.read_text() == "stages: {}  # edited\n"


def test_a_recipe_for_a_coco_folder_is_filled_in_and_valid(folder: Path) -> None:
    write_tiny_dataset(folder)
    assert call(f"ldp recipe new own --from {DATASET}") == DONE
    recipe = check_params(Path("recipes/own/params.yaml"))
    check_machine(recipe)
    check_images(recipe.path, 6)  # of 8 images 6 have an object
    assert recipe.data.source == recipe.data.coco.root == str(DATASET)
    assert recipe.data.coco.val.images == "val"
    assert recipe.teacher.detector.num_classes == 4
    assert recipe.cache.views.scales == (recipe.evaluate.scale,) == ((64, 64),)
    assert 0 < recipe.evaluate.area_edges[0] < recipe.evaluate.area_edges[1] < 64
