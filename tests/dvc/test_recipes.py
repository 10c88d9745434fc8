"""Recipes lie side by side: what DVC does under one neither touches nor forgets the outputs of another."""

import shutil
from pathlib import Path

import pytest
from dvc_in_process import accept, repro
from project import attempt, commit, queue_logs, run, stages_run, write_params
from store_cases import Content, content_of

from recipes import DATASET, NAME, Params, set_value, tiny_params

pytestmark = pytest.mark.slow

RECIPES = {NAME: "dvc.yaml", "other": "recipes/other/dvc.yaml", "third": "recipes/third/dvc.yaml"}
"""Where DVC finds the stages of each."""
OTHER = RECIPES["other"]
LD_STAGES = {"train_student@ld", "evaluate_student@ld", "report"}


def recipe_params(name: str) -> Params:
    params = tiny_params(name)
    params.update(root="../..", file=f"recipes/{name}/params.yaml")
    return params


@pytest.fixture(scope="module")
def computed(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with three computed recipes, all committed, and a remote."""
    folder = tmp_path_factory.mktemp("recipes") / "project"
    shutil.copytree(finished_repository, folder, symlinks=True)
    for name in ("other", "third"):
        (folder / "recipes" / name).mkdir()
        shutil.copyfile(folder / "dvc.yaml", folder / RECIPES[name])
        write_params(folder / "recipes" / name, recipe_params(name))
        shutil.copytree(folder / "runs" / NAME, folder / "runs" / name)
        # All stores differ, as those of recipes do.
        timing = folder / f"runs/{name}/cache/timing.json"
        timing.write_text(f"{timing.read_text()}\n{' ' * len(name)}")
        accept(folder, RECIPES[name])
    run(folder, "dvc", "remote", "add", "--default", "storage", str(folder.parent / "remote"))
    commit(folder, "more recipes")
    return folder


@pytest.fixture
def three(computed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(computed, tmp_path / "project", symlinks=True))


def outputs(folder: Path, names: list[str]) -> dict[str, Content]:
    """What DVC keeps of recipes."""
    below = {name: content_of(folder / "runs" / name) for name in names}
    return {name: {path: below[name][path] for path in below[name] if path != "checked"} for name in names}


def test_a_change_of_one_recipe_runs_nothing_of_the_others(three: Path) -> None:
    params = recipe_params("other")
    set_value(params, ("verify_cache", "views"), 3)
    write_params(three / "recipes/other", params)
    assert repro(three, OTHER) == {"verify_cache", "report"}
    assert [repro(three, target) for target in RECIPES.values()] == [set()] * 3


@pytest.mark.parametrize("name", [NAME, "other"])
def test_no_command_under_one_recipe_touches_the_others(three: Path, name: str) -> None:
    target = RECIPES[name]
    others = [other for other in RECIPES if other != name]
    before = outputs(three, others)
    garbage = three / ".dvc/cache/files/md5/00/00000000000000000000000000000a"
    garbage.parent.mkdir(exist_ok=True)
    garbage.write_text("of no recipe")
    commands = (
        "status",
        "checkout --allow-missing",
        "push",
        "pull --allow-missing",
        "gc --workspace --force",
    )
    for command in commands:
        run((three / target).parent, "dvc", *command.split())
        assert outputs(three, others) == before, command
    assert not garbage.exists()
    assert experiment(three, target, 0.5) == LD_STAGES
    assert outputs(three, others) == before
    shutil.rmtree(three / "runs")
    run(three, "dvc", "checkout", "--allow-missing")
    assert outputs(three, others) == before


def experiment(folder: Path, target: str, weight: float, *options: str) -> set[str]:
    """The stages that an experiment ran, if it is not queued; a check of the recipe aside."""
    change = f"{Path(target).parent}/params.yaml:students.ld.loss.ld_weight={weight}"
    ran = run(folder, "dvc", "exp", "run", *options, "--set-param", change, target)
    return stages_run(ran) - {"check_recipe"}


def test_queued_experiments_of_two_recipes_touch_neither(three: Path) -> None:
    before = outputs(three, list(RECIPES))
    for name in (NAME, "other"):
        experiment(three, RECIPES[name], 2, "--queue")
    run(three, "dvc", "queue", "start")
    assert [stages_run(log) - {"check_recipe"} for log in queue_logs(three)] == [LD_STAGES] * 2
    assert outputs(three, list(RECIPES)) == before


def test_a_clone_pulls_all_recipes_and_computes_nothing(three: Path, tmp_path: Path) -> None:
    run(three, "dvc", "push")
    before = outputs(three, list(RECIPES))
    for number, pull in enumerate(([], list(RECIPES.values()))):
        clone = tmp_path / f"clone{number}"
        run(tmp_path, "git", "clone", "--quiet", "project", clone.name)
        shutil.copytree(three / DATASET, clone / DATASET)
        run(clone, "dvc", "pull", *pull)
        assert outputs(clone, list(RECIPES)) == before
        assert [repro(clone, target) for target in RECIPES.values()] == [{"check_recipe"}] * 3


def test_images_that_are_not_there_are_named_before_anything_runs(three: Path) -> None:
    run(three, "ldp", "recipe", "add", "coco_sample")
    code, output = attempt(three, "dvc", "repro", "recipes/coco_sample/dvc.yaml")
    assert code != 0
    assert stages_run(output) == {"check_recipe"}
    assert (
        "error: recipes/coco_sample/params.yaml: prepare_data.coco: expected datasets/coco-sample," in output
    )


def test_commands_that_look_into_commits_know_every_recipe(three: Path) -> None:
    """They read each recipe's stages from git, where a link would be a text."""
    run(three, "dvc", "gc", "--workspace", "--all-commits", "--dry", "--force")
    run(three, "dvc", "metrics", "diff", "HEAD")
