"""People who share a git server and a DVC remote: the blocks of the manual that need two, or an order."""

import json
import shutil
import stat
from pathlib import Path

import pytest
from dvc_in_process import accept
from project import attempt, commit, queue_logs, run, stages_run
from readmes import LD_STAGES, STORE, block_with, shell
from wrong_input import change

from recipes import DATASET

pytestmark = pytest.mark.slow

WEIGHTS = "weights/teacher.safetensors"


def clone(lab: Path, name: str, *, images: bool = True, weights: bool = False) -> Path:
    """A new person's clone."""
    run(lab, "git", "clone", "--quiet", "hub.git", name)
    for place, copied in ((DATASET, images), ("weights", weights)):
        if copied:
            shutil.copytree(lab / "project" / place, lab / name / place)
    return lab / name


@pytest.fixture(scope="module")
def lab(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git server and a DVC remote; the first person, who alone has the teacher's weights, has pushed."""
    lab = tmp_path_factory.mktemp("lab")
    first = Path(shutil.copytree(finished_repository, lab / "project", symlinks=True))
    (first / "weights").mkdir()
    shutil.copy(first / "runs/shapes/teacher/model/teacher.safetensors", first / WEIGHTS)
    change(first, f"teacher from {WEIGHTS}")
    accept(first)
    commit(first, "a given teacher")
    run(lab, "git", "clone", "--quiet", "--bare", "project", "hub.git")
    run(first, "git", "remote", "add", "origin", str(lab / "hub.git"))
    run(first, "git", "push", "--quiet", "--set-upstream", "origin", "main")
    shell(first, lab, block_with("dvc push").text)
    return lab


def test_a_colleague_pulls_and_only_the_new_student_trains(lab: Path) -> None:
    """On a machine with the images but without the teacher's weights file."""
    second = lab / "ld"
    cloned, entered, *rest = block_with("git clone").text.splitlines()
    assert entered == "cd ld"
    shell(lab, lab, f"{cloned} ld")
    shutil.copytree(lab / "project" / DATASET, second / DATASET)
    pulled, nothing, experiment = rest
    shell(second, lab, pulled)
    assert not (second / "weights").exists()
    assert stages_run(shell(second, lab, nothing)) == set()
    assert stages_run(shell(second, lab, experiment)) == LD_STAGES
    output = run(second, "dvc", "metrics", "show", "--json", "runs/shapes/metrics")
    metrics = json.loads(output[output.index("{") :])
    assert "runs/shapes/metrics/ld.json" in metrics[""]["data"]


def test_a_colleague_fetches_no_more_than_students_need(lab: Path) -> None:
    folder = clone(lab, "lean")
    change(folder, "students.ld.loss.ld_weight = 0.25")
    assert stages_run(shell(folder, lab, block_with("--pull --allow-missing").text)) == LD_STAGES - {"report"}
    assert not (folder / "runs/shapes/teacher").exists()


def test_without_a_lock_file_all_is_found_by_its_inputs(lab: Path) -> None:
    folder = clone(lab, "lockless", weights=True)
    run(folder, "git", "rm", "--quiet", "dvc.lock")
    assert stages_run(shell(folder, lab, block_with("dvc fetch --run-cache").text)) == {"check_recipe"}
    assert (folder / STORE / "zarr.json").is_file()


def test_a_store_is_looked_at_without_images_and_teacher(lab: Path) -> None:
    folder = clone(lab, "viewer", images=False)
    output = shell(folder, lab, block_with("ldp store show").text)
    assert f"{STORE} is whole" in output
    assert "drawn on gray" in output
    assert (folder / "1_v0.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (folder / "runs/shapes").iterdir() if path.is_dir()] == ["cache"]


def test_users_of_one_machine_share_a_cache_that_none_can_write_to(lab: Path) -> None:
    one, other = clone(lab, "one"), clone(lab, "other")
    for folder in (one, other):
        assert stages_run(shell(folder, lab, block_with("cache.shared").text)) == set()
        shard = folder / STORE / "points/region/c/0/0"
        assert shard.is_symlink()
        assert shard.resolve().is_relative_to(lab / "shared_cache")
        assert not shard.resolve().stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    change(one, "students.ld.loss.ld_weight = 4.0")
    assert stages_run(run(one, "dvc", "repro", "--allow-missing")) == LD_STAGES
    # The other one's student of the same parameters is found in the folder, and nothing is computed.
    change(other, "students.ld.loss.ld_weight = 4.0")
    assert stages_run(run(other, "dvc", "repro", "--allow-missing")) == set()


def test_a_remote_that_is_not_there_is_named_and_nothing_is_lost(lab: Path) -> None:
    folder = clone(lab, "offline", images=False)
    run(folder, "dvc", "remote", "add", "--local", "--force", "storage", "ssh://127.0.0.1:1/nowhere")
    code, output = attempt(folder, "dvc", "pull")
    assert code != 0
    assert "ERROR" in output
    run(folder, "dvc", "remote", "modify", "--local", "storage", "url", str(lab / "remote"))
    run(folder, "dvc", "pull", STORE)
    assert "is whole" in run(folder, "ldp", "store", "verify")


def test_one_experiment_and_its_table(lab: Path) -> None:
    folder = clone(lab, "experimenter", weights=True)
    run(folder, "dvc", "pull", "--allow-missing")
    output = shell(folder, lab, block_with("dvc exp run -S").text)
    assert stages_run(output) - {"check_recipe"} == LD_STAGES
    # An AP of 0 does not change.
    for column in ("training/ld.json:seconds", "students.ld.loss.ld_weight"):
        assert column in output


def test_a_queue_trains_each_point_of_a_grid_from_the_one_store(lab: Path) -> None:
    """Git tracks neither the images nor the teacher's weights: each run's folder gets links to them."""
    folder = clone(lab, "queue", weights=True)
    run(folder, "dvc", "pull", "--allow-missing")
    *commands, status, shown = block_with("dvc queue start").text.splitlines()
    for command in (*commands, status):
        shell(folder, lab, command)
    assert [stages_run(log) for log in queue_logs(folder)] == [{"check_recipe"} | LD_STAGES] * 2
    assert (folder / DATASET / "train").is_dir()
    table = shell(folder, lab, shown)
    assert "0.5" in table
    assert "2" in table
