"""Recipes lie side by side: what DVC does under one neither touches nor forgets the outputs of another."""

import shutil
from pathlib import Path

import pytest
from dvc_in_process import accept, opened, repro
from project import commit, run, write_params

from recipes import DATASET, NAME, Params, set_value, tiny_params

pytestmark = pytest.mark.slow

OTHER = "recipes/other/dvc.yaml"
STORES = {name: f"runs/{name}/cache/targets.zarr/zarr.json" for name in (NAME, "other")}


def other_params() -> Params:
    params = tiny_params("other")
    params.update(root="../..", file="recipes/other/params.yaml")
    return params


@pytest.fixture(scope="module")
def computed(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two computed recipes, both committed."""
    folder = tmp_path_factory.mktemp("recipes") / "project"
    shutil.copytree(finished_repository, folder, symlinks=True)
    (folder / "recipes/other").mkdir()
    shutil.copyfile(folder / "dvc.yaml", folder / OTHER)
    write_params(folder / "recipes/other", other_params())
    shutil.copytree(folder / "runs" / NAME, folder / "runs/other")
    # Both stores differ, as those of two recipes do.
    store = folder / "runs/other/cache/timing.json"
    store.write_text(store.read_text() + "\n")
    accept(folder, OTHER)
    commit(folder, "another recipe")
    return folder


@pytest.fixture
def both(computed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(computed, tmp_path / "project", symlinks=True))


def test_each_recipe_knows_what_it_has_computed(both: Path) -> None:
    assert repro(both) == set()
    assert repro(both, OTHER) == set()


def test_a_change_of_one_recipe_runs_nothing_of_the_other(both: Path) -> None:
    params = other_params()
    set_value(params, ("verify_cache", "views"), 3)
    write_params(both / "recipes/other", params)
    assert repro(both) == set()
    assert repro(both, OTHER) == {"verify_cache", "report"}
    assert repro(both) == set()


@pytest.mark.parametrize("folder", [".", "recipes/other"])
def test_checkout_under_one_recipe_leaves_the_outputs_of_the_other(both: Path, folder: str) -> None:
    run(both / folder, "dvc", "checkout", "--allow-missing")
    assert all((both / store).is_file() for store in STORES.values())


def test_collecting_garbage_keeps_what_every_recipe_names(both: Path) -> None:
    (both / ".dvc/cache/files/md5/00").mkdir(exist_ok=True)
    garbage = both / ".dvc/cache/files/md5/00/00000000000000000000000000000a"
    garbage.write_text("nobody's")
    run(both, "dvc", "gc", "--workspace", "--force")
    assert not garbage.exists()
    shutil.rmtree(both / "runs")
    with opened(both) as repo:
        repo.checkout(allow_missing=True)
    assert all((both / store).is_file() for store in STORES.values())


def test_a_clone_pulls_both_recipes_and_computes_nothing(both: Path, tmp_path: Path) -> None:
    run(both, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "remote"))
    commit(both, "remote")
    run(both, "dvc", "push")
    run(tmp_path, "git", "clone", "--quiet", "project", "second")
    second = tmp_path / "second"
    shutil.copytree(both / DATASET, second / DATASET)
    run(second, "dvc", "pull", "--allow-missing")
    assert all((second / store).is_file() for store in STORES.values())
    assert repro(second) == repro(second, OTHER) == set()


def test_an_experiment_on_one_recipe_runs_its_student_alone(both: Path) -> None:
    weight = "recipes/other/params.yaml:students.ld.loss.ld_weight=0.5"
    output = run(both, "dvc", "exp", "run", "--set-param", weight, OTHER)
    assert "train_student@ld" in output
    assert "Running stage 'recipes/other/dvc.yaml:prepare_teacher" not in output
    assert repro(both) == set()


def test_commands_that_look_into_commits_know_every_recipe(both: Path) -> None:
    """They read each recipe's stages from git, where a link would be a text."""
    run(both, "dvc", "gc", "--workspace", "--all-commits", "--dry", "--force")
    run(both, "dvc", "metrics", "diff", "HEAD")
