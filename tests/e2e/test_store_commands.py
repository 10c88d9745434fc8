"""``ldp store`` as its user meets it: what is printed where, and with which exit code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from finished import FOLDER, call
from project import edit_params
from store_cases import content_of, flip_middle

from pipeline.store.reader.reader import TargetStore
from recipes import DATASET, ROOT, set_value

STORE = FOLDER.store
PNG = b"\x89PNG"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a command left behind."""

    code: int
    stdout: str
    error: str
    """Its one line of error, or what it logged."""


Ldp = Callable[..., Finished]


@pytest.fixture
def folder(own_project: Path) -> Path:
    """The finished project without unfinished work, and the current folder."""
    shutil.rmtree("scratch")
    return own_project


@pytest.fixture
def ldp(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Ldp:
    """Run `ldp store ...` in this process."""

    def run(*arguments: object) -> Finished:
        capsys.readouterr()
        caplog.clear()
        caplog.set_level("INFO")
        ended = call(" ".join(["ldp store", *map(str, arguments)]))
        error = ended.error or "\n".join(caplog.messages)
        return Finished(code=ended.code, stdout=capsys.readouterr().out, error=error)

    return run


@pytest.mark.usefixtures("folder")
def test_info_prints_the_facts_of_the_default_store(ldp: Ldp) -> None:
    finished = ldp("info")
    assert finished.code == 0
    assert finished.stdout.startswith("path: runs/shapes/cache/targets.zarr\n")
    assert "edge_step" in finished.stdout


def test_a_store_is_named_by_its_folder_or_by_its_recipe(ldp: Ldp, folder: Path) -> None:
    (folder / "recipes").mkdir()
    shutil.move("params.yaml", folder / "recipes/params.yaml")
    facts = [ldp("info", named) for named in (STORE, "recipes", "recipes/params.yaml")]
    assert [finished.code for finished in facts] == [0, 0, 0]
    assert len({finished.stdout for finished in facts}) == 1
    assert "expected a name" in ldp("info", "another").error
    shutil.move(folder / "recipes/params.yaml", "params.yaml")
    assert ldp("info", "shapes").stdout == facts[0].stdout


@pytest.mark.usefixtures("folder")
def test_info_as_json_is_the_only_thing_on_stdout(ldp: Ldp) -> None:
    document = json.loads(ldp("info", STORE, "--json").stdout)
    assert (document["views"], document["images"], document["partitions"]) == (16, 8, 4)
    assert document["fingerprint"] == TargetStore.open(STORE).fingerprint


def test_info_and_verify_load_neither_torch_nor_matplotlib(folder: Path) -> None:
    code = (
        "import sys; from pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'matplotlib', 'dask'} & set(sys.modules), 'too much is imported'"
    )
    for action in ("info", "verify"):
        command = [sys.executable, "-c", code, "store", action]
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        finished = subprocess.run(
            command, cwd=folder, env=environment, text=True, capture_output=True, check=False
        )
        assert finished.returncode == 0, finished.stderr


@pytest.mark.usefixtures("folder")
def test_verify_of_a_whole_store_exits_with_0(ldp: Ldp) -> None:
    finished = ldp("verify")
    assert (finished.code, finished.stdout) == (
        0,
        "runs/shapes/cache/targets.zarr is whole: every file is as recorded\n",
    )
    assert json.loads(ldp("verify", "--json").stdout) == {
        "path": "runs/shapes/cache/targets.zarr",
        "whole": True,
        "damaged_partitions": [],
        "problems": [],
    }


@pytest.mark.usefixtures("folder")
def test_verify_has_a_line_for_every_problem_and_names_the_partitions_last(ldp: Ldp) -> None:
    flip_middle(STORE / "points/edge_codes/c/2/0")
    (STORE / "points/region/c/0/0").unlink()
    (STORE / "stray").touch()
    finished = ldp("verify", STORE)
    assert finished.code == 1
    first, second, third = finished.stdout.splitlines()
    assert first.startswith("points/edge_codes/c/2/0  partition 2  the content differs")
    assert " ".join(second.split()) == "points/region/c/0/0 partition 0 the file is missing"
    assert third.startswith("stray ")
    assert finished.error == (
        f"error: {STORE}: 3 damaged files, in partitions 0, 2; `ldp store repair` makes them again"
    )


@pytest.mark.usefixtures("folder")
def test_verify_as_json_has_all_problems(ldp: Ldp) -> None:
    flip_middle(STORE / "points/edge_codes/c/2/0")
    finished = ldp("verify", "--json")
    document = json.loads(finished.stdout)
    assert (finished.code, document["whole"], document["damaged_partitions"]) == (1, False, [2])
    (problem,) = document["problems"]
    assert (problem["file"], problem["partition"]) == ("points/edge_codes/c/2/0", 2)


def test_nothing_to_repair_needs_neither_parameters_nor_teacher(folder: Path, ldp: Ldp) -> None:
    (folder / "params.yaml").unlink()
    finished = ldp("repair", STORE)
    assert (finished.code, finished.error) == (
        0,
        "runs/shapes/cache/targets.zarr is whole: nothing to repair",
    )


def test_repair_brings_every_file_back_and_verifies_again(folder: Path, ldp: Ldp) -> None:
    before = content_of(folder / STORE)
    for name in set(before) - {"zarr.json"}:
        flip_middle(STORE / name)
    (STORE / "stray").touch()
    finished = ldp("repair")
    assert finished.code == 0, finished.error
    assert content_of(folder / STORE) == before
    assert "removed what is not part of the store: stray" in finished.error
    assert "ran the teacher for partitions 0, 1, 2, 3" in finished.error
    assert finished.error.endswith("runs/shapes/cache/targets.zarr is whole again")


@pytest.mark.usefixtures("folder")
def test_repair_removes_stray_files_without_parameters(ldp: Ldp) -> None:
    Path("params.yaml").unlink()
    (STORE / "stray").touch()
    assert ldp("repair", STORE).code == 0
    assert not (STORE / "stray").exists()


def test_repair_takes_the_partitions_of_the_store_not_of_the_parameters(folder: Path, ldp: Ldp) -> None:
    before = content_of(folder / STORE)
    keys = ("cache_teacher", "views_per_partition")
    edit_params(folder, lambda params: set_value(params, keys, 7))
    for name in ("points/edge_codes/c/1/0", "views/extent/c/0/0"):
        flip_middle(STORE / name)
    assert ldp("repair").code == 0
    assert content_of(folder / STORE) == before


@pytest.mark.usefixtures("folder")
def test_repair_of_a_damaged_root_says_what_to_do(ldp: Ldp) -> None:
    flip_middle(STORE / "zarr.json")
    finished = ldp("repair")
    assert finished.code == 1
    assert "nothing can be repaired without the store's own records" in finished.error
    assert "dvc" in finished.error


@pytest.mark.usefixtures("folder")
def test_show_draws_the_image_of_the_manifest(ldp: Ldp) -> None:
    image_id = TargetStore.open(STORE).keys[0].image_id
    finished = ldp("show", image_id, "--view", 1)
    assert (finished.code, finished.stdout) == (0, "")
    assert finished.error.startswith(f"pixels: {DATASET}/train/")
    assert Path(f"{image_id}_v1.png").read_bytes().startswith(PNG)


@pytest.mark.usefixtures("folder")
def test_show_without_images_draws_on_gray_and_says_so(ldp: Ldp) -> None:
    shutil.rmtree(DATASET)
    image_id = TargetStore.open(STORE).keys[0].image_id
    finished = ldp("show", image_id, "--output", "new/a.png")
    assert finished.code == 0
    assert "expected an image, but there is none" in finished.error
    assert "pixels: none, drawn on gray; wrote new/a.png" in finished.error
    assert Path("new/a.png").read_bytes().startswith(PNG)
