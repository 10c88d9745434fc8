"""``ldp store`` as its user meets it: what is printed where, and with which exit code."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from finished import FOLDER, Ended, call
from project import edit_params
from store_cases import content_of, flip_middle

from pipeline.store.reader.reader import TargetStore
from recipes import DATASET, ROOT, set_value

STORE = FOLDER.store
PNG = b"\x89PNG"

Ldp = Callable[..., Ended]
"""What is printed on standard output is left to ``capsys``."""


@pytest.fixture
def folder(own_project: Path) -> Path:
    """The finished project without unfinished work, and the current folder."""
    shutil.rmtree("scratch")
    return own_project


@pytest.fixture
def ldp(folder: Path, caplog: pytest.LogCaptureFixture) -> Ldp:  # noqa: ARG001
    """Run `ldp store ...` in this process; an end without an error has what was logged in its place."""
    caplog.set_level("INFO")

    def run(*arguments: object) -> Ended:
        caplog.clear()
        ended = call(" ".join(["ldp store", *map(str, arguments)]))
        return Ended(code=ended.code, error=ended.error or "\n".join(caplog.messages))

    return run


def test_info_prints_the_facts_of_a_store_by_its_folder_or_its_recipe(
    ldp: Ldp, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("recipes").mkdir()
    shutil.copy("params.yaml", "recipes/params.yaml")
    texts = set()
    for named in ("", "shapes", STORE, "recipes", "recipes/params.yaml"):
        assert ldp("info", named).code == 0
        texts.add(capsys.readouterr().out)
    (text,) = texts
    assert text.startswith("path: runs/shapes/cache/targets.zarr\n")
    assert "edge_step" in text
    ldp("info", STORE, "--json")
    document = json.loads(capsys.readouterr().out)
    assert (document["views"], document["images"], document["partitions"]) == (16, 8, 4)
    assert document["fingerprint"] == TargetStore.open(STORE).fingerprint


def test_info_and_verify_load_neither_torch_nor_matplotlib(folder: Path) -> None:
    code = (
        "import sys; from pipeline.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'matplotlib', 'dask'} & set(sys.modules), 'too much is imported'"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    for action in ("info", "verify"):
        command = [sys.executable, "-c", code, "store", action]
        subprocess.run(command, cwd=folder, env=environment, check=True)


def test_a_whole_store_is_called_so_and_needs_neither_parameters_nor_teacher(
    ldp: Ldp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ldp("verify").code == 0
    assert capsys.readouterr().out == "runs/shapes/cache/targets.zarr is whole: every file is as recorded\n"
    Path("params.yaml").unlink()
    whole = Ended(code=0, error="runs/shapes/cache/targets.zarr is whole: nothing to repair")
    assert ldp("repair", STORE) == whole
    (STORE / "stray").touch()
    assert ldp("repair", STORE).code == 0
    assert not (STORE / "stray").exists()


def test_verify_has_a_line_for_every_problem_and_names_the_partitions_last(
    ldp: Ldp, capsys: pytest.CaptureFixture[str]
) -> None:
    flip_middle(STORE / "points/edge_codes/c/2/0")
    (STORE / "points/region/c/0/0").unlink()
    (STORE / "stray").touch()
    finished = ldp("verify", STORE)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("points/edge_codes/c/2/0  the content differs")
    assert " ".join(second.split()) == "points/region/c/0/0 the file is missing"
    assert third.startswith("stray ")
    problem = f"{STORE}: 3 damaged files, in partitions 0, 2; `ldp store repair` makes them again"
    assert finished == Ended(code=1, error=f"error: {problem}")


def test_repair_brings_every_file_back_with_the_partitions_of_the_store(folder: Path, ldp: Ldp) -> None:
    before = content_of(STORE)
    edit_params(folder, lambda params: set_value(params, ("cache_teacher", "views_per_partition"), 7))
    for name in set(before) - {"zarr.json"}:
        flip_middle(STORE / name)
    (STORE / "stray").touch()
    finished = ldp("repair")
    assert content_of(STORE) == before
    assert "running the teacher for partitions 0, 1, 2, 3" in finished.error
    assert "runs/shapes/cache/targets.zarr is whole again: made or removed " in finished.error


def test_show_draws_the_image_of_the_manifest_or_on_gray_and_says_so(
    ldp: Ldp, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ldp("show", 1, "--view", 1) == Ended(code=0, error="wrote 1_v1.png")
    assert capsys.readouterr().out == ""
    shutil.rmtree(DATASET)
    finished = ldp("show", 1, "--output", "new/a.png")
    assert finished.code == 0
    assert re.search("drawn on gray: .* expected an image, but there is none", finished.error)
    for picture in ("1_v1.png", "new/a.png"):
        assert Path(picture).read_bytes().startswith(PNG)
