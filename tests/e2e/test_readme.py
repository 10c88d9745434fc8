"""The README's chapters "Share" and "Experiment", command by command, as two people would type them."""

import json
import re
import shutil
import stat
from pathlib import Path

import pytest
import torch
from project import (
    DATASET,
    ROOT,
    Params,
    attempt,
    edit_params,
    export_tree,
    run,
    stages_run,
    start_repository,
    tiny_params,
    write_params,
    write_tiny_dataset,
)

from pipeline.core.config import structure
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, save_detector

WEIGHTS = "weights/teacher.safetensors"
STORE = "runs/shapes/cache/targets.zarr"
LD = {"train_student@ld", "evaluate_student@ld", "report"}

URL, REMOTE, SHARED_CACHE = "git@example.org:lab/ld.git", "/mnt/share/ld", "/srv/ld-cache"
"""What stands in the README for a place of the reader's own."""


def chapter(title: str) -> list[str]:
    """Shell blocks of a chapter of the README."""
    text = (ROOT / "README.md").read_text()
    body = re.split(r"^## ", text.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)


def block_with(title: str, command: str) -> str:
    """The one block of a chapter that holds a command."""
    (block,) = (block for block in chapter(title) if command in block)
    return block


PUSH = block_with("Share", "dvc push")
PULL = block_with("Share", "git clone")
STUDENTS_ONLY = block_with("Share", "--pull --allow-missing")
RUN_CACHE = block_with("Share", "dvc fetch --run-cache")
LOOK = block_with("Share", "ldp store show")
PART = block_with("Share", "ldp store files")
SHARED = block_with("Share", "cache.shared")
ONE = block_with(
    "Experiment", "dvc exp show --only-changed --drop '.*' --keep 'Experiment|.*:AP$|.*ld.json:seconds"
)
QUEUE = block_with("Experiment", "dvc queue start")


def test_every_command_of_both_chapters_is_run_here() -> None:
    run_here = {PUSH, PULL, STUDENTS_ONLY, RUN_CACHE, LOOK, PART, SHARED, ONE, QUEUE}
    others = [block for title in ("Share", "Experiment") for block in chapter(title) if block not in run_here]
    assert all(block.startswith("ldp seeds") or "ldp recipe shapes_ablation" in block for block in others)


class Lab:
    """A place with a git server, a DVC remote, and people who work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub = folder / "hub.git"
        self.remote = folder / "remote"
        self.shared_cache = folder / "shared_cache"

    def shell(self, where: Path, block: str, **changes: str) -> str:
        """Run a block of the README; the places that it names are this lab's."""
        for named, here in ((URL, self.hub), (REMOTE, self.remote), (SHARED_CACHE, self.shared_cache)):
            block = block.replace(named, str(here))
        return run(where, "bash", "-euo", "pipefail", "-c", block, **changes)

    def clone(self, name: str, *, images: bool = True) -> Path:
        """A new person's clone."""
        run(self.folder, "git", "clone", "--quiet", str(self.hub), name)
        if images:
            shutil.copytree(self.folder / "first" / DATASET, self.folder / name / DATASET)
        return self.folder / name


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The first person has run the teacher, whose weights only they have, and pushed."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    first = export_tree(lab.folder / "first")
    write_tiny_dataset(first)
    params = tiny_params(name="shapes")
    params["prepare_teacher"].update(source=WEIGHTS, views=None, train=None)
    write_params(first, params)
    ignored = first / ".gitignore"
    ignored.write_text(ignored.read_text() + "/weights/\n")
    torch.manual_seed(0)
    detector = structure(DetectorConfig, params["prepare_teacher"]["detector"], "the tiny recipe")
    save_detector(GFL(detector), first / WEIGHTS, {})
    start_repository(first)
    run(lab.folder, "git", "clone", "--quiet", "--bare", "first", "hub.git")
    run(first, "git", "remote", "add", "origin", str(lab.hub))
    run(first, "git", "fetch", "--quiet", "origin")
    run(first, "git", "branch", "--set-upstream-to", "origin/main", "--quiet")
    lab.shell(first, PUSH)
    return lab


def test_a_colleague_pulls_and_only_the_new_student_trains(lab: Lab) -> None:
    """On a machine with the images but without the teacher's weights file."""
    second = lab.folder / "ld"
    cloned, entered, *rest = PULL.splitlines()
    assert entered == "cd ld"
    lab.shell(lab.folder, f"{cloned} ld")
    shutil.copytree(lab.folder / "first" / DATASET, second / DATASET)
    pulled, nothing, experiment = rest
    lab.shell(second, pulled)
    assert not (second / "weights").exists()
    assert stages_run(lab.shell(second, nothing)) == set()
    assert stages_run(lab.shell(second, experiment)) == LD
    metrics = json.loads(run(second, "dvc", "metrics", "show", "--json"))
    assert "runs/shapes/metrics/ld.json" in metrics[""]["data"]


def test_a_colleague_fetches_no_more_than_students_need(lab: Lab) -> None:
    folder = lab.clone("lean")
    set_weight(folder, 0.25)
    assert stages_run(lab.shell(folder, STUDENTS_ONLY)) == LD - {"report"}
    assert not (folder / "runs/shapes/teacher").exists()


def test_without_a_lock_file_all_is_found_by_its_inputs(lab: Lab) -> None:
    folder = lab.clone("lockless")
    shutil.copytree(lab.folder / "first/weights", folder / "weights")
    run(folder, "git", "rm", "--quiet", "dvc.lock")
    assert stages_run(lab.shell(folder, RUN_CACHE)) == set()
    assert (folder / STORE / "zarr.json").is_file()


def test_a_store_is_looked_at_without_images_and_teacher(lab: Lab) -> None:
    folder = lab.clone("viewer", images=False)
    output = lab.shell(folder, LOOK)
    assert f"{STORE} is whole" in output
    assert "drawn on gray" in output
    assert (folder / "1_v0.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (folder / "runs/shapes").iterdir() if path.is_dir()] == ["cache"]


def test_two_partitions_are_enough_for_a_smoke_run(lab: Lab) -> None:
    folder = lab.clone("part")
    output = lab.shell(folder, PART)
    assert "2 of 4 partitions are here: 8 of 16 views" in output
    assert re.search(r"loss_ld: [\d.e+-]+ -> [\d.e+-]+", output)
    shards = [path.parent.name for path in (folder / STORE / "points/region/c").rglob("0") if path.is_file()]
    assert sorted(shards) == ["0", "1"]


def test_users_of_one_machine_share_a_cache_that_none_can_write_to(lab: Lab) -> None:
    one, other = lab.clone("one"), lab.clone("other")
    for folder in (one, other):
        assert stages_run(lab.shell(folder, SHARED)) == set()
        shard = folder / STORE / "points/region/c/0/0"
        assert shard.is_symlink()
        assert shard.resolve().is_relative_to(lab.shared_cache)
        assert not shard.resolve().stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    set_weight(one, 4.0)
    assert stages_run(run(one, "dvc", "repro", "--allow-missing")) == LD
    # The other one's student of the same parameters is found in the folder, and nothing is computed.
    set_weight(other, 4.0)
    assert stages_run(run(other, "dvc", "repro", "--allow-missing")) == set()


def test_a_remote_that_is_not_there_is_named_and_nothing_is_lost(lab: Lab) -> None:
    folder = lab.clone("offline", images=False)
    run(folder, "dvc", "remote", "add", "--local", "--force", "storage", "ssh://127.0.0.1:1/nowhere")
    code, output = attempt(folder, "dvc", "pull")
    assert code != 0
    assert "ERROR" in output
    run(folder, "dvc", "remote", "modify", "--local", "storage", "url", str(lab.remote))
    run(folder, "dvc", "pull", STORE)
    assert "is whole" in run(folder, "ldp", "store", "verify")


def test_one_experiment_and_its_table(lab: Lab) -> None:
    folder = lab.clone("experimenter")
    shutil.copytree(lab.folder / "first/weights", folder / "weights")
    run(folder, "dvc", "pull")
    output = lab.shell(folder, ONE)
    assert stages_run(output) == LD
    for column in ("metrics/ld.json:AP", "training/ld.json:seconds", "students.ld.loss.ld_weight"):
        assert column in output


def test_a_queue_trains_each_point_of_a_grid_from_the_one_store(lab: Lab) -> None:
    folder = lab.clone("queue")
    run(folder, "dvc", "pull")
    block = QUEUE.replace("--queue", "--queue --allow-missing")
    queued, started, status, shown = block.splitlines()
    datasets = {"LDP_DATASETS": str(folder / "datasets")}
    lab.shell(folder, queued)
    lab.shell(folder, started, **datasets)
    logs = wait_for_queue(lab, folder, status)
    assert [stages_run(log) for log in logs] == [LD, LD]
    table = lab.shell(folder, shown)
    assert "0.5" in table
    assert "2" in table


def wait_for_queue(lab: Lab, folder: Path, status: str) -> list[str]:
    """Logs of all tasks, once none waits or runs."""
    for _ in range(600):
        output = lab.shell(folder, status)
        tasks = re.findall(r"^([0-9a-f]{7}) .*(Queued|Running|Success|Failed)", output, flags=re.MULTILINE)
        assert "Failed" not in output, run(folder, "dvc", "queue", "logs", tasks[0][0])
        if tasks and all(state == "Success" for _, state in tasks):
            return [run(folder, "dvc", "queue", "logs", task) for task, _ in tasks]
        attempt(folder, "sleep", "1")
    raise AssertionError(output)


def set_weight(folder: Path, value: float) -> None:
    def edit(values: Params) -> None:
        values["students"]["ld"]["loss"]["ld_weight"] = value

    edit_params(folder, edit)
