"""The recipes: each is valid from its first key to its last, and those of one name share one store."""

import itertools
from pathlib import Path

import pytest

from pipeline.cli.params import require_params
from pipeline.core.config import PARAMS, read_sections

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
UP_TO_THE_STORE = ("prepare_data", "prepare_teacher", "cache_teacher")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid(recipe: Path) -> None:
    require_params(recipe)


def test_the_default_is_a_recipe_too() -> None:
    assert (ROOT / PARAMS).read_bytes() == (ROOT / "recipes/shapes.yaml").read_bytes()


@pytest.mark.parametrize(
    ("one", "other"), list(itertools.combinations(RECIPES, 2)), ids=lambda path: path.stem
)
def test_recipes_of_one_name_make_the_same_store_and_call_only_equal_students_equal(
    one: Path, other: Path
) -> None:
    first, second = read_sections(one), read_sections(other)
    if first["name"] != second["name"]:
        return
    for section in UP_TO_THE_STORE:
        assert first[section] == second[section]
    for name in first["students"].keys() & second["students"].keys():
        assert first["students"][name] == second["students"][name]
