"""``ldp recipe``: one recipe becomes ``params.yaml`` whole or not at all, and no edit is lost."""

import shutil
import sys
from pathlib import Path

import pytest
from project import run, start_repository

from pipeline.cli.main import main
from recipes import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the recipes and the default parameters."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    start_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ldp(*arguments: str) -> str | None:
    """Run `ldp recipe`; its error, if it ends with one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ldp", "recipe", *arguments])
        try:
            main()
        except SystemExit as ended:
            return str(ended.code)
    return None


def test_a_recipe_is_taken_to_the_byte_and_another_after_it(folder: Path) -> None:
    for name in ("smoke", "coco_sample", "shapes"):
        assert ldp(name) is None
        assert (folder / "params.yaml").read_bytes() == (folder / f"recipes/{name}.yaml").read_bytes()


def test_the_list_marks_the_current_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ldp() is None
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("*")] == ["shapes"]
    (folder / "params.yaml").write_text("name: mine\n")
    assert ldp() is None
    assert capsys.readouterr().out.endswith("params.yaml is none of these\n")


def test_edits_are_kept_unless_they_are_committed_or_given_up(folder: Path) -> None:
    edited = (folder / "params.yaml").read_text() + "# mine\n"
    (folder / "params.yaml").write_text(edited)
    assert "has edits that are neither committed nor a recipe" in (ldp("smoke") or "")
    assert (folder / "params.yaml").read_text() == edited
    run(folder, "git", "commit", "--quiet", "--all", "--message", "mine")
    assert ldp("smoke") is None
    (folder / "params.yaml").write_text(edited + "# more\n")
    assert ldp("smoke", "--force") is None


def test_a_recipe_that_is_not_valid_is_not_taken(folder: Path) -> None:
    before = (folder / "params.yaml").read_bytes()
    broken = (folder / "recipes/smoke/params.yaml").read_text().replace("ld_weight: 1.0", "ld_weight: heavy")
    (folder / "recipes/broken.yaml").write_text(broken)
    assert "broken.yaml: students.ld.loss.ld_weight: expected a finite number" in (ldp("broken") or "")
    assert "expected one of broken, coco_r101_r18_1x" in (ldp("nothing") or "")
    assert (folder / "params.yaml").read_bytes() == before
