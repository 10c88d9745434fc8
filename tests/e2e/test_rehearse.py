"""``ldp rehearse``: all stages of a recipe made short, and nothing else of it or of the workspace changed."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished import Ended, call, files_below, working_in
from project import write_params, write_tiny_dataset
from quick_python import quick_python

from pipeline.cli.params import check_params
from pipeline.cli.stage_processes import stage_processes
from pipeline.core.config import structure
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_detector, save_detector
from pipeline.rehearsal.overrides import override
from pipeline.rehearsal.shorten import Shortening, shorten
from pipeline.rehearsal.stand_ins import find_or_replace, run_apart, write_random_teacher
from recipes import DATASET, ROOT, Params, given_teacher, tiny_params

PUBLISHED = ("coco_r101_r18_1x", "coco_r101_r34_1x", "coco_r101_r50_1x", "coco_r101dcn_r101_2x")
PER_EPOCH = {"epochs": 3, "long_edge": 64, "short_edges": [48, 64], "flip_probability": 0.5, "seed": 0}
MISSING = "weights/elsewhere.safetensors"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny dataset and a recipe of one student whose teacher's weights file is not there."""
    folder = tmp_path / "workspace"
    write_tiny_dataset(folder)
    params = tiny_params()
    given_teacher(params, MISSING)
    del params["students"]["plain"]
    # What is asked of a trained teacher's store, that of the random weights fulfils, too.
    params["cache_teacher"]["precision"].update(edge_step=0.03, cls_step=0.03)
    write_params(folder, params)
    monkeypatch.setattr(sys, "executable", str(quick_python() / "python"))
    monkeypatch.setattr("pipeline.rehearsal.stand_ins.run_apart", lambda write, *given: write(*given))
    with working_in(folder):
        yield folder


def rehearse(arguments: str = "") -> tuple[Ended, Params]:
    """Run the command; how it ended, and the figures that it wrote."""
    figures = Path("../figures.json")
    ended = call(f"ldp rehearse --json {figures} {arguments}".strip())
    return ended, json.loads(figures.read_text()) if figures.exists() else {}


def edit(folder: Path, change: Callable[[Params], object]) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    change(params)
    write_params(folder, params)


def recipe(name: str) -> Params:
    content: Params = yaml.safe_load((ROOT / f"recipes/{name}.yaml").read_text())
    return content


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    if not isinstance(value, dict):
        return {key: value}
    return {k: v for name, part in value.items() for k, v in flat(part, f"{key}.{name}").items()}


def test_every_stage_runs_and_the_workspace_is_as_it_was(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_below(workspace)
    ended, figures = rehearse("--images 3")
    assert ended == Ended(code=0, error="")
    assert files_below(workspace) == before
    stages = {row["stage"]: row for row in figures["stages"]}
    assert list(stages) == [process.label for process in stage_processes(["ld"])]
    assert stages["prepare_data"]["left"]["training images"] == 3
    assert stages["cache_teacher"]["left"]["views"] == 6
    assert stages["train_student ld"]["left"]["steps"] == 1
    assert all(row["spent"]["seconds"] > 0 for row in stages.values())
    said = capfd.readouterr().out
    assert f"There is no {MISSING}: the teacher's weights are random, and every AP means nothing." in said
    assert "Batches of 3 instead of 4 images, learning rate 0.0015 instead of 0.002." in said
    assert all(f"| {stage} |" in said for stage in stages)


def test_views_of_every_epoch_are_those_of_the_rehearsed_epochs(workspace: Path) -> None:
    def plan_epochs(params: Params) -> None:
        params["cache_teacher"]["views"] = PER_EPOCH
        for student in params["students"].values():
            student["train"]["schedule"].update(epochs=3, decay="step", milestones=[1, 2])
            student["validation"] = {"every": 1, "keep": "last", "scale": [64, 64], "batch_size": 4}

    edit(workspace, plan_epochs)
    ended, figures = rehearse("--images 2 --epochs 2 --keep ../kept")
    assert ended.code == 0
    stages = {row["stage"]: row["left"] for row in figures["stages"]}
    assert stages["cache_teacher"]["views"] == 4
    assert stages["train_student ld"]["steps"] == 2
    kept = workspace.parent / "kept"
    scores = (kept / "runs/shapes/students/ld/ap.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in scores] == ["epoch", "2"]
    assert (kept / "runs/shapes/report/index.html").is_file()


def test_a_teacher_that_hardly_learns_need_not_pass_the_bounds_of_a_trained_one(workspace: Path) -> None:
    def train_teacher(params: Params) -> None:
        params["prepare_teacher"] = recipe("smoke")["prepare_teacher"]

    edit(workspace, train_teacher)
    ended, figures = rehearse("--images 2")
    assert ended.code == 0
    assert any("refuses nothing" in note for note in figures["notes"])
    stages = {row["stage"]: row["left"] for row in figures["stages"]}
    assert stages["prepare_teacher"]["steps"] == 1


def test_weights_that_are_there_are_taken(workspace: Path) -> None:
    detector = tiny_params()["prepare_teacher"]["detector"]
    weights = workspace / MISSING
    save_detector(GFL(structure(DetectorConfig, detector, "tiny")), weights, {})
    # As unsure as a detector is at first, unlike the random weights that stand in for one.
    finer = {"edge_step": 0.005, "cls_step": 0.005}
    edit(workspace, lambda params: params["cache_teacher"]["precision"].update(finer))
    ended, figures = rehearse("--images 2 --keep ../kept")
    assert ended.code == 0
    assert not any("random" in note for note in figures["notes"])
    taken = workspace.parent / "kept/runs/shapes/teacher/model/teacher.safetensors"
    assert taken.read_bytes() == weights.read_bytes()


def test_a_dataset_elsewhere_is_found_by_the_environment_too(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "datasets").rename(workspace.parent / "elsewhere")
    monkeypatch.setenv("LDP_DATASETS", "../elsewhere")
    assert rehearse("--images 2")[0].code == 0


def test_a_batch_has_no_more_images_than_there_are_to_train_on(workspace: Path) -> None:
    """Images without boxes are left out, and how many those are only the first stage knows."""
    annotations = workspace / DATASET / "annotations/instances_train.json"
    content = json.loads(annotations.read_text())
    first = min(image["id"] for image in content["images"])
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] != first]
    annotations.write_text(json.dumps(content))
    edit(workspace, lambda params: params["prepare_data"].update(keep_empty_images=False))
    ended, figures = rehearse("--images 4")
    assert ended.code == 0
    assert figures["stages"][0]["left"]["training images"] == 3
    assert figures["changes"]["students.ld.train.schedule.batch_size"] == [4, 3]


def test_a_stage_that_fails_is_named_after_those_that_ran(
    workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = next((workspace / DATASET / "val").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    ended, figures = rehearse("--images 4")
    assert ended.code == 1
    assert "params.yaml: stage evaluate_teacher failed with exit code 1" in ended.error
    assert [row["stage"] for row in figures["stages"]][-1] == "evaluate_teacher"
    said = capfd.readouterr()
    assert "| prepare_teacher |" in said.out
    assert f"error: {damaged}" in said.err


def test_wrong_arguments_are_one_clear_line(workspace: Path) -> None:
    (workspace.parent / "there").mkdir()
    for arguments, expected in {
        "-S students.ld.train.sed=1": "-S students.ld.train.sed: unknown key 'sed'; expected one of "
        "students.ld.train: seed, pretrained",
        "-S student.ld=1": "-S student.ld: unknown key 'student'; expected one of the parameters: name,",
        "-S name.first=1": "-S name.first: unknown key 'first'",
        "-S name": "-S: expected KEY=VALUE, but got 'name'",
        "-S students.ld.train.seed=[": "-S: expected YAML behind the =",
        "-S students.ld.train.seed=high": "students.ld.train.seed: expected an integer",
        "-S students.ld.train=null": "students.ld.train: expected a mapping",
        "--images 0": "--images: expected 1 or more, but got 0",
        "--keep ../there": "--keep: expected a new folder, but ../there is there",
        "nowhere.yaml": "nowhere.yaml: expected a parameter file, but there is none",
    }.items():
        ended, _ = rehearse(arguments)
        assert ended.code == 1
        assert expected in ended.error


def test_weights_are_written_in_another_process(tmp_path: Path) -> None:
    detector = structure(DetectorConfig, tiny_params()["prepare_teacher"]["detector"], "tiny")
    weights = tmp_path / "weights/random.safetensors"
    run_apart(write_random_teacher, detector, weights)
    assert (load_detector(weights).bbox_head.gfl_cls.bias == 0).all()


def test_values_from_the_command_line_are_yaml() -> None:
    params = {"a": {"b": 1, "c": [1]}, "d": None}
    changed = override(params, ["a.b=0.5", "a.c=[2, 3]", "d={name: x=y}"])
    assert changed == {"a": {"b": 0.5, "c": [2, 3]}, "d": {"name": "x=y"}}
    assert override(params, ["a.b=1", "a.b=null"])["a"]["b"] is None
    assert params == {"a": {"b": 1, "c": [1]}, "d": None}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_differs_in_what_makes_it_short_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("pipeline.rehearsal.stand_ins.run_apart", lambda *_: None)
    whole = recipe(name)
    found, notes = find_or_replace(whole, tmp_path / "random.safetensors", lambda root: root)
    short = shorten(found, Shortening(images=4, epochs=2, batch_size=4))
    before, after = flat(whole), flat(short)
    assert before.keys() == after.keys()
    schedules = ["epochs", "batch_size", "learning_rate", "milestones"]
    expected = {".prepare_data.coco.root": str(tmp_path / "datasets/coco")}
    expected[".prepare_teacher.source"] = str(tmp_path / "random.safetensors")
    expected |= {f".prepare_data.coco.{split}.limit": 4 for split in ("train", "val")}
    if name.endswith("2x"):
        expected[".cache_teacher.views.epochs"] = 2
    for student in whole["students"]:
        start = f".students.{student}"
        values = zip(schedules, (2, 4, 0.0025, []), strict=True)
        expected |= {f"{start}.train.schedule.{key}": value for key, value in values}
        expected |= {f"{start}.train.pretrained": False, f"{start}.validation.every": 2}
    assert {key: value for key, value in after.items() if value != before[key]} == expected
    assert len(notes) == 2
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(short))
    check_params(tmp_path / "params.yaml")


def test_weights_in_torchvisions_cache_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("pipeline.rehearsal.stand_ins.run_apart", lambda *_: None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/resnet18-f37072fd.pth").touch()
    found, notes = find_or_replace(recipe("coco_r101_r18_1x"), tmp_path / "random.safetensors", str)
    assert found["students"]["r18_plain"]["train"]["pretrained"] is True
    assert len(notes) == 1


def test_what_is_small_already_stays_as_it_is() -> None:
    smoke = recipe("smoke")
    assert shorten(smoke, Shortening(images=1000, epochs=50, batch_size=1000)) == smoke


def test_the_stages_are_those_of_dvc() -> None:
    """With the same commands, each after what it depends on."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    commands = {name: stage["cmd"].replace("${item.student}", "ld") for name, stage in stages.items()}
    ours = stage_processes(["ld"])
    assert {process.stage: f"python -m {' '.join(process.arguments)}" for process in ours} == commands
    made: list[str] = []
    for process in ours:
        stage = stages[process.stage]
        needed = [dep for dep in stage["deps"] if dep.startswith("runs/")]
        assert all(any(out.startswith(dep) or dep.startswith(out) for out in made) for dep in needed)
        for kind in ("outs", "metrics", "plots"):
            made += [next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])]
