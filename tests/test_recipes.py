"""The recipes: each is valid from its first key to its last, and they stay short."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.params import check_params
from pipeline.core.config import read_sections
from pipeline.core.paths import recipe_files
from recipes import ROOT


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_recipe_is_valid_has_a_name_of_its_own_and_says_only_what_is_its_own() -> None:
    paths = recipe_files()
    assert len({read_sections(check_params(path).path)["name"] for path in paths}) == len(paths) > 5
    default, *others = (
        len(path.read_text().splitlines()) for path in [*paths, *Path("recipes/teachers").glob("*.yaml")]
    )
    assert default <= 50
    assert sum(others) <= 500


def test_dvc_knows_no_recipe_but_the_default_until_it_is_added() -> None:
    """A recipe that never ran would fill `dvc status` and `dvc metrics show`, and let `dvc pull` fail."""
    tracked = subprocess.run(["git", "ls-files", "*dvc.yaml"], check=True, capture_output=True, text=True)
    assert tracked.stdout.split() == ["dvc.yaml"]


def test_the_ablation_takes_the_default_recipes_teacher() -> None:
    """And so its data, its store but for the dense arrays, and two students are the default's, too."""
    default, ablation = (check_params(Path(p, "params.yaml")) for p in ("", "recipes/shapes_ablation"))
    assert ablation.teacher.source == "runs/shapes/teacher/model/teacher.safetensors"
    assert ablation.teacher.detector == default.teacher.detector
    cache = msgspec.structs.replace(ablation.cache, dense=None)
    assert (ablation.data, cache, ablation.evaluate) == (default.data, default.cache, default.evaluate)
    assert ablation.students.items() >= default.students.items()
