"""What a message advises concerns the recipe that it is about."""

from pathlib import Path

import pytest

from pipeline.core.paths import in_its_recipe


@pytest.mark.parametrize(
    ("message", "params", "advised"),
    [
        ("runs/mine/x: `dvc repro -f report`", "params.yaml", "`dvc repro -f recipes/mine/dvc.yaml:report`"),
        ("fetch it with `dvc pull`", "recipes/mine/params.yaml", "`dvc pull recipes/mine/dvc.yaml`"),
        ("runs/shapes/x: `dvc repro -f report`", "params.yaml", "`dvc repro -f dvc.yaml:report`"),
        ("fetch it with `dvc pull`", "params.yaml", "`dvc pull dvc.yaml`"),
    ],
)
def test_commands_of_dvc_name_the_stages_of_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, params: str, advised: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/mine").mkdir(parents=True)
    (tmp_path / "recipes/mine/dvc.yaml").touch()
    monkeypatch.setattr("sys.argv", ["verify_cache.py", "--params", params])
    assert advised in in_its_recipe(message)
