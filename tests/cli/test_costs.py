"""``ldp plan`` and ``ldp bench``: hours by hand, and what they print and write without a dataset."""

import json
import re
from pathlib import Path

import pytest
from finished import Ended, call, working_in
from teacher_cases import small_manifest

from pipeline.cli.costs import BARE, STAGE, Card, compare
from pipeline.core.config import load_section
from pipeline.core.progress import break_even
from pipeline.cost.probe import MODES, STORED
from pipeline.datasets.coco import read_coco
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.views.conventions import GFL_CONVENTIONS
from recipes import ROOT

SMOKE = ROOT / "recipes/smoke/params.yaml"


def test_hours_by_hand() -> None:
    """1,000 images with 2 views; one student of 10 epochs, whose step takes 2 s an image."""
    card = Card(
        images=1000,
        views=2000,
        points_per_view=900.0,
        bytes_per_view=5000.0,
        assign=0.1,
        teacher=3.0,
        write=0.5,
        read=0.5,
        students={"ld": (10, 2.0)},
    )
    assert card.student_hours("ld") == pytest.approx((10 * 1000 * 2.5 / 3600, 10 * 1000 * 5.1 / 3600))
    assert card.break_even() == 1
    text = card.render()
    assert all(part in text for part in ("2,000", "10.0 MB", "1.67 h", "6.94 h", "14 h", "break-even"))


def test_break_even_is_the_first_number_of_students_for_which_the_store_costs_less() -> None:
    costs_and_savings = ((0.9, 1.0), (1.0, 1.0), (2.5, 1.0), (1.0, 0.0), (1.0, -1.0))
    assert [break_even(*each) for each in costs_and_savings] == [1, 2, 3, None, None]


def test_medians_are_compared_with_those_they_stand_beside() -> None:
    seconds = {"plain": [0.004, 0.001, 0.002], "ld": [0.003, 0.003, 1.5]}
    lines = compare("step", seconds, {"/ plain": "plain", "/ ld": "ld"}).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[0] == ["step", "ms", "lowest - highest", "/ plain", "/ ld"]
    assert rows[2:] == [
        ["plain", "2.0", "1.0 - 4.0", "1.000", "0.667"],
        ["ld", "3.0", "3.0 - 1,500.0", "1.500", "1.000"],
    ]


@pytest.mark.slow
def test_a_sample_stands_for_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = Path(small_manifest(tmp_path).root, "annotations/instances_train.json")
    with working_in(tmp_path):
        assert call(f"ldp plan {SMOKE} --annotations {sample} --images 1000") == Ended(code=0, error="")
    cache = load_section(CacheConfig, "cache_teacher", SMOKE)
    manifest = read_coco(sample, str(sample), "")
    views = list(ViewSet(manifest, (8, 16, 32), cache.views, cache.regions, GFL_CONVENTIONS))
    points = sum(len(view.points) for view in views) / len(views)
    printed = capsys.readouterr().out
    assert re.search(rf"views  +2,000  +{points:,.0f} kept points each", printed)
    assert re.search(r"break-even, students +(\d+|never)", printed)
    assert re.findall(r"^\| (\w+) .* h \|$", printed, re.MULTILINE) == ["plain", "ld"]


@pytest.mark.slow
def test_steps_and_passes_are_measured_without_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--views 4 --rounds 1 --steps 1 --batches 2 --json out.json"
    small = "-S student.train.batch_size=1 -S student.train.precision=bfloat16"
    with working_in(tmp_path):
        assert call(f"ldp bench {SMOKE} {options} {small}") == Ended(code=0, error="")
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["student"] == "ld, mobilenet_v3_small, bfloat16"
    assert list(document["steps"]) == [*MODES, f"{STORED}, with loading"]
    assert list(document["cache"]) == [STAGE, BARE, f"{BARE}, in batches of 2"]
    printed = capsys.readouterr().out
    for name, (seconds,) in (document["steps"] | document["cache"]).items():
        assert seconds > 0
        assert f"| {name} " in printed
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
