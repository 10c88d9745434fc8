"""Every command of every README, in a small project in which everything has run.

A block of shell commands is run as it stands, but for the places that only its reader has (``STAND_INS``);
the recipes that it names are tiny ones. Blocks whose commands need two people, or belong in an order, have a
test of their own. A block below a line ``<!-- not run: REASON -->`` is not run.
"""

import json
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from dvc_in_process import accept, repro
from finished import call, working_in
from project import (
    attempt,
    commit,
    edit_params,
    edited_json,
    export_tree,
    run,
    stages_run,
    start_repository,
    write_params,
    write_tiny_dataset,
)

from recipes import DATASET, LD, ROOT, Params, given_teacher, set_value, tiny_params

pytestmark = pytest.mark.slow

WEIGHTS = "weights/teacher.safetensors"
STORE = "runs/shapes/cache/targets.zarr"
LD_STAGES = {"train_student@ld", "evaluate_student@ld", "report"}
CHECKPOINT = "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth"

STAND_INS = {
    "uv run ": "",
    "/path/to/coco-sample": "{dataset}",
    "/path/to/coco ": "{dataset} ",
    "git@example.org:lab/ld.git": "{folder}/hub.git",
    "/mnt/share/ld": "{folder}/remote",
    "/srv/ld-cache": "{folder}/shared_cache",
    "--nproc-per-node 4": "--nproc-per-node 2",
    "--all-commits": "--all-commits --force",
}
"""What stands in a README for a place, a machine and an answer of the reader's own, and what it is here."""


@dataclass(frozen=True)
class Block:
    """Shell commands of a README.

    Attributes:
        readme: The file.
        line: Of its first command.
        text: The commands.
        not_run: Why it is not run; empty if it is.
    """

    readme: str
    line: int
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.readme}:{self.line}"


def blocks() -> list[Block]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*README.md"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    pattern = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n+)?^```(?:sh|bash)\n(.*?)^```", re.M | re.S)
    found = []
    for name in names:
        text = (ROOT / name).read_text()
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start(2)) + 1
            found.append(Block(name, line, match[2], match[1] or ""))
    return found


BLOCKS = blocks()


def block_with(command: str, readme: str = "stages/README.md") -> Block:
    """The first block of a manual that holds a command."""
    return next(block for block in BLOCKS if block.readme == readme and command in block.text)


PUSH = block_with("dvc push")
PULL = block_with("git clone")
STUDENTS_ONLY = block_with("--pull --allow-missing")
RUN_CACHE = block_with("dvc fetch --run-cache")
LOOK = block_with("ldp store show")
SHARED = block_with("cache.shared")
EXPERIMENT = block_with("dvc exp run -S")
QUEUE = block_with("dvc queue start")
OWN_IMAGES = block_with("ldp recipe new", "README.md")
IN_ORDER = (OWN_IMAGES, PUSH, PULL, STUDENTS_ONLY, RUN_CACHE, LOOK, SHARED, EXPERIMENT, QUEUE)
ALONE = [block for block in BLOCKS if block not in IN_ORDER and not block.not_run]


def shell(where: Path, folder: Path, text: str, **changes: str) -> str:
    """Run commands; the places that they name are below ``folder``."""
    for named, here in STAND_INS.items():
        text = text.replace(named, here.format(folder=folder, dataset=folder / "project" / DATASET))
    return run(where, "bash", "-euo", "pipefail", "-c", text, **changes)


@pytest.fixture(scope="module")
def project(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished repository, with tiny recipes in the place of those that the READMEs name."""
    folder = tmp_path_factory.mktemp("readmes")
    project = Path(shutil.copytree(finished_repository, folder / "project", symlinks=True))
    for recipe in {name for block in BLOCKS for name in re.findall(r"recipes/(\w+)/", block.text)} - {"mine"}:
        place = project / "recipes" / recipe
        place.mkdir(exist_ok=True)
        write_params(place, _recipe(recipe))
    write_checkpoint(project)
    commit(project, "tiny recipes")
    return project


def _recipe(name: str) -> Params:
    params = tiny_params(name)
    params.update(root="../..", file=f"recipes/{name}/params.yaml")
    if name.startswith("coco_r101"):
        params["students"] = {"r50_full": params["students"]["ld"]}
    return params


def write_checkpoint(folder: Path) -> None:
    """A detector as mmdetection keeps it."""
    import torch  # noqa: PLC0415

    from pipeline.core.config import structure  # noqa: PLC0415
    from pipeline.detector.config import DetectorConfig  # noqa: PLC0415
    from pipeline.detector.gfl import GFL, save_detector  # noqa: PLC0415

    config = tiny_params()["prepare_teacher"]["detector"] | {"backbone": "resnet18"}
    torch.manual_seed(0)
    detector = GFL(structure(DetectorConfig, config, "the tiny recipe"))
    save_detector(detector, folder / "weights/a.safetensors", {})
    with working_in(folder):
        ended = call(f"ldp teacher export weights/a.safetensors {CHECKPOINT}")
        assert ended.code == 0, ended.error


@pytest.mark.parametrize("block", ALONE, ids=str)
def test_a_block_of_commands_runs(project: Path, tmp_path: Path, block: Block) -> None:
    own = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    shell(own, tmp_path, block.text)


def test_a_block_that_is_not_run_has_a_reason_and_most_are() -> None:
    assert all(len(block.not_run.split()) > 2 for block in BLOCKS if block.not_run)
    assert sum(1 for block in BLOCKS if block.not_run) < len(BLOCKS) / 4


def test_the_way_to_images_of_ones_own_leads_to_its_end(tmp_path: Path) -> None:
    """Three classes whose ids have gaps and whose names have accents."""
    classes = {7: "Château", 19: "Müller", 300: "niño"}
    write_tiny_dataset(tmp_path, train_images=24)
    for path in (tmp_path / DATASET / "annotations").iterdir():
        with edited_json(path) as content:
            ids = dict(zip((row["id"] for row in content["categories"]), classes, strict=False))
            content["categories"] = [{"id": key, "name": name} for key, name in classes.items()]
            rows = [row | {"category_id": ids.get(row["category_id"])} for row in content["annotations"]]
            content["annotations"] = [row for row in rows if row["category_id"]]
    folder = start_repository(export_tree(tmp_path / "project"))
    for line in OWN_IMAGES.text.replace("/path/to/coco-layout-folder", str(tmp_path / DATASET)).splitlines():
        command = line.partition("#")[0].strip()
        if command.startswith("dvc repro "):
            assert "report" in repro(folder, command.split()[-1])
        else:
            with working_in(folder):
                assert call(command).code == 0
    teacher = json.loads((folder / "runs/mine/teacher/model/teacher.json").read_text())
    assert [tuple(row) for row in teacher["classes"]] == list(classes.items())
    summary = json.loads((folder / "runs/mine/evaluation/ld/summary.json").read_text())
    assert list(summary["per_class"]) == list(classes.values())
    page = (folder / "runs/mine/report/index.html").read_text()
    assert all(name in page for name in classes.values())


class Lab:
    """A place with a git server, a DVC remote, and people who work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = folder / "remote"
        self.shared_cache = folder / "shared_cache"

    def shell(self, where: Path, text: str, **changes: str) -> str:
        return shell(where, self.folder, text, **changes)

    def clone(self, name: str, *, images: bool = True) -> Path:
        """A new person's clone."""
        run(self.folder, "git", "clone", "--quiet", "hub.git", name)
        if images:
            shutil.copytree(self.folder / "project" / DATASET, self.folder / name / DATASET)
        return self.folder / name


@pytest.fixture(scope="module")
def lab(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The first person has run the teacher, whose weights only they have, and pushed."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    first = Path(shutil.copytree(finished_repository, lab.folder / "project", symlinks=True))
    (first / "weights").mkdir()
    shutil.copy(first / "runs/shapes/teacher/model/teacher.safetensors", first / WEIGHTS)
    edit_params(first, lambda values: given_teacher(values, WEIGHTS))
    accept(first)
    commit(first, "a given teacher")
    run(lab.folder, "git", "clone", "--quiet", "--bare", "project", "hub.git")
    run(first, "git", "remote", "add", "origin", str(lab.folder / "hub.git"))
    run(first, "git", "fetch", "--quiet", "origin")
    run(first, "git", "branch", "--set-upstream-to", "origin/main", "--quiet")
    lab.shell(first, PUSH.text)
    return lab


def test_a_colleague_pulls_and_only_the_new_student_trains(lab: Lab) -> None:
    """On a machine with the images but without the teacher's weights file."""
    second = lab.folder / "ld"
    cloned, entered, *rest = PULL.text.splitlines()
    assert entered == "cd ld"
    lab.shell(lab.folder, f"{cloned} ld")
    shutil.copytree(lab.folder / "project" / DATASET, second / DATASET)
    pulled, nothing, experiment = rest
    lab.shell(second, pulled)
    assert not (second / "weights").exists()
    assert stages_run(lab.shell(second, nothing)) == set()
    assert stages_run(lab.shell(second, experiment)) == LD_STAGES
    output = run(second, "dvc", "metrics", "show", "--json", "runs/shapes/metrics")
    metrics = json.loads(output[output.index("{") :])
    assert "runs/shapes/metrics/ld.json" in metrics[""]["data"]


def test_a_colleague_fetches_no_more_than_students_need(lab: Lab) -> None:
    folder = lab.clone("lean")
    set_weight(folder, 0.25)
    assert stages_run(lab.shell(folder, STUDENTS_ONLY.text)) == LD_STAGES - {"report"}
    assert not (folder / "runs/shapes/teacher").exists()


def test_without_a_lock_file_all_is_found_by_its_inputs(lab: Lab) -> None:
    folder = lab.clone("lockless")
    shutil.copytree(lab.folder / "project/weights", folder / "weights")
    run(folder, "git", "rm", "--quiet", "dvc.lock")
    assert stages_run(lab.shell(folder, RUN_CACHE.text)) == {"check_recipe"}
    assert (folder / STORE / "zarr.json").is_file()


def test_a_store_is_looked_at_without_images_and_teacher(lab: Lab) -> None:
    folder = lab.clone("viewer", images=False)
    output = lab.shell(folder, LOOK.text)
    assert f"{STORE} is whole" in output
    assert "drawn on gray" in output
    assert (folder / "1_v0.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in (folder / "runs/shapes").iterdir() if path.is_dir()] == ["cache"]


def test_users_of_one_machine_share_a_cache_that_none_can_write_to(lab: Lab) -> None:
    one, other = lab.clone("one"), lab.clone("other")
    for folder in (one, other):
        assert stages_run(lab.shell(folder, SHARED.text)) == set()
        shard = folder / STORE / "points/region/c/0/0"
        assert shard.is_symlink()
        assert shard.resolve().is_relative_to(lab.shared_cache)
        assert not shard.resolve().stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    set_weight(one, 4.0)
    assert stages_run(run(one, "dvc", "repro", "--allow-missing")) == LD_STAGES
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
    shutil.copytree(lab.folder / "project/weights", folder / "weights")
    run(folder, "dvc", "pull", "--allow-missing")
    output = lab.shell(folder, EXPERIMENT.text)
    assert stages_run(output) - {"check_recipe"} == LD_STAGES
    # An AP of 0 does not change.
    for column in ("training/ld.json:seconds", "students.ld.loss.ld_weight"):
        assert column in output


def test_a_queue_trains_each_point_of_a_grid_from_the_one_store(lab: Lab) -> None:
    """Git tracks neither the images nor the teacher's weights: each run's folder gets links to them."""
    folder = lab.clone("queue")
    shutil.copytree(lab.folder / "project/weights", folder / "weights")
    run(folder, "dvc", "pull", "--allow-missing")
    queued, started, status, shown = QUEUE.text.splitlines()
    lab.shell(folder, queued)
    lab.shell(folder, started)
    logs = wait_for_queue(lab, folder, status)
    assert [stages_run(log) for log in logs] == [{"check_recipe"} | LD_STAGES] * 2
    assert (folder / DATASET / "train").is_dir()
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
    edit_params(folder, lambda values: set_value(values, (*LD, "loss", "ld_weight"), value))
