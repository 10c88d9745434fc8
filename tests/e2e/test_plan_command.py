"""``ldp plan``: a card from a sample's annotations."""

import re
from pathlib import Path

import pytest
from finished import Ended, call
from teacher_cases import small_manifest

from pipeline.core.config import load_section
from pipeline.datasets.coco import read_coco
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.views.conventions import GFL_CONVENTIONS
from recipes import ROOT

SMOKE = ROOT / "recipes/smoke/params.yaml"


@pytest.mark.slow
def test_a_sample_stands_for_a_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LDP_DEVICE", "cpu")
    sample = Path(small_manifest(tmp_path).root, "annotations/instances_train.json")
    assert call(f"ldp plan {SMOKE} --annotations {sample} --images 1000") == Ended(code=0, error="")
    cache = load_section(CacheConfig, "cache_teacher", SMOKE)
    manifest = read_coco(sample, str(sample), "")
    views = list(ViewSet(manifest, (8, 16, 32), cache.views, cache.regions, GFL_CONVENTIONS))
    points = sum(len(view.points) for view in views) / len(views)
    printed = capsys.readouterr().out
    assert re.search(rf"views  +2,000  +{points:,.0f} kept points each", printed)
    assert re.search(r"break-even, students +(\d+|never)", printed)
    assert re.findall(r"^\| (\w+) .* h \|$", printed, re.MULTILINE) == ["plain", "ld"]
