"""``ldp rehearse``: all stages of a recipe made short, and nothing else of it or of the workspace changed."""

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished import Ended, call, working_in
from project import edited_json, write_params, write_tiny_dataset
from quick_python import quick_python
from store_cases import content_of
from wrong_input import change

from pipeline.cli.options import copied_recipe
from pipeline.cli.params import read_recipe
from pipeline.cli.rehearse import shorten
from pipeline.core.config import read_sections
from pipeline.core.paths import SPLITS, RunPaths
from pipeline.store.reader.reader import TargetStore
from pipeline.training.config import RANDOM_WEIGHTS
from recipes import DATASET, NAME, ROOT, given_teacher, tiny_params

MISSING = "weights/elsewhere.safetensors"
BOUNDED = "kl loss_error gradient_error dense_loss_error dense_gradient_error share_below_floor"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny dataset and a recipe of one student whose teacher's weights file is missing."""
    folder = tmp_path / "workspace"
    write_tiny_dataset(folder)
    params = tiny_params()
    given_teacher(params, MISSING)
    params["prepare_data"]["keep_empty_images"] = False
    del params["students"]["plain"]
    write_params(folder, params)
    monkeypatch.setattr(sys, "executable", str(quick_python() / "python"))
    with working_in(folder):
        yield folder


@pytest.mark.slow
def test_every_stage_runs_and_the_workspace_is_as_it_was(
    workspace: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where one of the few images has no box, and the recipe leaves such images out."""
    with edited_json(workspace / DATASET / "annotations/instances_train.json") as content:
        first = min(image["id"] for image in content["images"])
        content["annotations"] = [box for box in content["annotations"] if box["image_id"] != first]
    before = content_of(workspace)
    with caplog.at_level("INFO"):
        assert call("ldp rehearse --images 4 --keep ../kept") == Ended(code=0, error="")
    assert content_of(workspace) == before
    kept = RunPaths(workspace.parent / "kept/runs" / NAME)
    sizes = [len(json.loads(kept.manifest(split).read_text())["images"]) for split in SPLITS]
    assert sizes == [4, 4]
    assert len(TargetStore.open(kept.store).keys) == 8
    assert len((kept.student("ld") / "loss.csv").read_text().splitlines()) == 2, "a head, and one step"
    assert kept.report.is_file()
    lines = caplog.text.splitlines()
    assert "  prepare_data.keep_empty_images: False -> True" in lines
    assert f"  prepare_teacher.source: {MISSING} -> {RANDOM_WEIGHTS}" in lines
    assert "fidelity_error" in capfd.readouterr().out


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_rehearsal(workspace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    damaged = next((workspace / DATASET / "val").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert "params.yaml: a stage failed, whose name and error stand above" in call("ldp rehearse").error
    errors = capfd.readouterr().err
    assert "failed to reproduce 'evaluate_teacher'" in errors
    assert f"error: {damaged}" in errors


def test_values_from_the_command_line_are_yaml(tmp_path: Path) -> None:
    recipe = tmp_path / "params.yaml"
    recipe.write_text("a: {b: 1, c: [1]}\nd: null\n")
    changes = ["a.b=0.5", "a.c=[2, 3]", "d={name: x=y}", "e.f=null"]
    with copied_recipe(Namespace(recipe=str(recipe), assignments=changes)) as copy:
        place = {"root": str(Path.cwd()), "file": str(copy)}
        values = {"a": {"b": 0.5, "c": [2, 3]}, "d": {"name": "x=y"}, "e": {"f": None}}
        assert read_sections(copy) == values | place
    assert recipe.read_text() == "a: {b: 1, c: [1]}\nd: null\n"


@pytest.mark.parametrize("name", ["coco_r101_1x", "coco_r101dcn_r101_2x"])
def test_a_published_recipe_differs_in_what_makes_it_short_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("LDP_DATASETS", raising=False)
    recipe = read_recipe(ROOT / f"recipes/{name}/params.yaml")
    schedule = {"epochs": 2, "batch_size": 4, "learning_rate": 0.0025, "milestones": (), "warmup_steps": 1}
    train = schedule | {"pretrained": False, "frozen_stages": -1}
    assert {key: new for key, (_, new) in shorten(recipe, images=4, epochs=2).items()} == {
        "prepare_data.source": "pipeline/datasets/coco.py",
        "prepare_data.keep_empty_images": True,
        "prepare_data.coco.root": str(tmp_path / "datasets/coco"),
        "prepare_teacher.source": RANDOM_WEIGHTS,
        **{f"prepare_data.coco.{split}.limit": 4 for split in SPLITS},
        **{f"verify_cache.max_{name}": 1e9 for name in BOUNDED.split()},
        **({"cache_teacher.views.epochs": 2} if name.endswith("2x") else {}),
        **{f"students.{one}.train.{key}": value for one in recipe.students for key, value in train.items()},
        **{f"students.{one}.validation.every": 2 for one in recipe.students},
    }


def test_what_is_small_stays_as_it_is_and_files_are_taken_where_they_lie(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's weights, and those in torchvision's cache."""
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(workspace))
    for file in (MISSING, "checkpoints/resnet18-f37072fd.pth"):
        (workspace / file).parent.mkdir()
        (workspace / file).touch()
    change(workspace, "student.detector.backbone = resnet18")
    change(workspace, "student.train.pretrained = true")
    changes = shorten(read_recipe(workspace / "params.yaml"), images=1000, epochs=50)
    assert changes.pop("prepare_teacher.source") == (MISSING, str(workspace / MISSING))
    assert {key.partition(".")[0] for key in changes} == {"prepare_data"}
