"""``ldp plan``: a card from a sample's annotations, and what is said where there are none."""

import json
import re
import shlex
from pathlib import Path

import pytest
from finished import Ended, call
from teacher_cases import small_manifest

RECIPES = Path(__file__).parents[2] / "recipes"


def view_set(*arguments: object) -> Ended:
    return call(shlex.join(["ldp", "plan", *map(str, arguments)]))


@pytest.mark.slow
def test_a_sample_stands_for_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    root = Path(small_manifest(tmp_path).root)
    sample, card = str(root / "annotations/instances_train.json"), tmp_path / "card.json"
    ended = view_set(RECIPES / "smoke/params.yaml", "--annotations", sample, "--images", 1000, "--json", card)
    assert ended == Ended(code=0, error="")
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
    assert re.search(expected, view_set(RECIPES / "coco_r101_1x/params.yaml").error)


def test_an_impossible_number_of_images_is_refused() -> None:
    ended = view_set(RECIPES / "smoke/params.yaml", "--images", 0)
    assert "--images: expected 1 or more, but got 0" in ended.error
