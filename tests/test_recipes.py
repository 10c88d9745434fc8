"""The recipes: each is valid from its first key to its last, and they stay short."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline.cli.params import check_params
from pipeline.core.config import read_sections
from pipeline.core.paths import recipe_files

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_every_recipe_is_valid_and_has_a_name_of_its_own() -> None:
    paths = recipe_files()
    assert len(paths) > 5
    assert len({read_sections(check_params(path).path)["name"] for path in paths}) == len(paths)


def test_dvc_knows_no_recipe_but_the_default_until_it_is_added() -> None:
    """A recipe that never ran would fill `dvc status` and `dvc metrics show`, and let `dvc pull` fail."""
    tracked = subprocess.run(["git", "ls-files", "*dvc.yaml"], check=True, capture_output=True, text=True)
    assert tracked.stdout.split() == ["dvc.yaml"]


def test_recipes_say_only_what_is_their_own() -> None:
    assert len(Path("params.yaml").read_text().splitlines()) <= 50
    files = [*Path("recipes").glob("*/params.yaml"), *Path("recipes").glob("teachers/*.yaml")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 500


def test_the_ablation_takes_the_default_recipes_teacher() -> None:
    """And so its data, its store but for the dense arrays, and two students are the default's, too."""
    default, ablation = (
        check_params(p) for p in (Path("params.yaml"), Path("recipes/shapes_ablation/params.yaml"))
    )
    assert ablation.teacher.source == "runs/shapes/teacher/model/teacher.safetensors"
    assert ablation.teacher.detector == default.teacher.detector
    cache = msgspec.structs.replace(ablation.cache, dense=None)
    assert (ablation.data, cache, ablation.evaluate) == (
        default.data,
        default.cache,
        default.evaluate,
    )
    for name, student in default.students.items():
        assert ablation.students[name] == student
