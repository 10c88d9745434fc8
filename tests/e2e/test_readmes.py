"""Every command of every README, in a small project in which everything has run.

A block of shell commands is run as it stands, but for the places that only its reader has; the recipes that
it names are tiny ones. Blocks whose commands need two people, or belong in an order, have tests of their own
(``test_lab.py``). A block below a line ``<!-- not run: REASON -->`` is not run.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from dvc_in_process import repro
from finished import call, working_in
from project import commit, edited_json, export_tree, start_repository, write_params, write_tiny_dataset
from readmes import ALONE, BLOCKS, OWN_IMAGES, Block, shell

from pipeline.core.config import structure
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, save_detector
from recipes import DATASET, tiny_params

pytestmark = pytest.mark.slow

CHECKPOINT = "gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth"


@pytest.fixture(scope="module")
def project(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished repository, with tiny recipes in the place of those that the READMEs name."""
    folder = tmp_path_factory.mktemp("readmes")
    project = Path(shutil.copytree(finished_repository, folder / "project", symlinks=True))
    for recipe in {name for block in BLOCKS for name in re.findall(r"recipes/(\w+)/", block.text)} - {"mine"}:
        place = project / "recipes" / recipe
        place.mkdir(exist_ok=True)
        params = tiny_params(recipe) | {"root": "../..", "file": f"recipes/{recipe}/params.yaml"}
        if recipe.startswith("coco_r101"):
            params["students"] = {"r50_full": params["students"]["ld"]}
        write_params(place, params)
    # A detector as mmdetection keeps it.
    config = tiny_params()["prepare_teacher"]["detector"] | {"backbone": "resnet18"}
    torch.manual_seed(0)
    detector = GFL(structure(DetectorConfig, config, "the tiny recipe"))
    save_detector(detector, project / "weights/a.safetensors", {})
    with working_in(project):
        assert call(f"ldp teacher export weights/a.safetensors {CHECKPOINT}").code == 0
    commit(project, "tiny recipes")
    return project


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
