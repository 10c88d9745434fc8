"""``ldp plan``: a card from a sample's annotations, and what is said where there are none."""

import argparse
import json
from pathlib import Path

import pytest
from teacher_cases import small_manifest

from pipeline.cli.plan import add_command
from pipeline.core.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"


def plan(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    add_command(parser)
    parsed = parser.parse_args(arguments)
    parsed.run(parsed)


def test_a_sample_stands_for_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    root = Path(small_manifest(tmp_path).root)
    sample, card = str(root / "annotations/instances_train.json"), tmp_path / "card.json"
    plan(str(RECIPES / "smoke/params.yaml"), "--annotations", sample, "--images", "1000", "--json", str(card))
    content = json.loads(card.read_text())
    views = content["statistics"]
    assert (views["images"], views["views"]) == (1000, 2000)
    assert content["store_bytes"] == pytest.approx(2000 * views["store_bytes_per_view"])
    assert {student["name"] for student in content["students"]} == {"plain", "ld"}
    assert "break-even" in capsys.readouterr().out


def test_without_annotations_the_next_step_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LDP_DATASETS", raising=False)
    expected = r"instances_train2017.json: expected an annotation file.*--annotations FILE --images N"
    with pytest.raises(ConfigError, match=expected):
        plan(str(RECIPES / "coco_r101_1x/params.yaml"))


def test_an_impossible_number_of_images_is_refused() -> None:
    with pytest.raises(ConfigError, match="--images: expected 1 or more, but got 0"):
        plan(str(RECIPES / "smoke/params.yaml"), "--images", "0")
