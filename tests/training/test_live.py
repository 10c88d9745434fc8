"""A training that runs can be watched: in a log file, and in DVCLive's files; what comes out is the same."""

import csv
import json
import logging
import sys
from pathlib import Path

import pytest
from training_cases import FULL, same_weights, student, taught

from pipeline.core import progress
from pipeline.core.errors import ConfigError
from pipeline.training.loop import Trained, Validation

EPOCHS, STEPS = 2, 8


def run(folder: Path, **options: object) -> Trained:
    return taught(student(FULL, epochs=EPOCHS), folder, log_every=2, **options)


def validation() -> Validation:
    scores = iter(({"AP": 12.34, "AP50": 20.0, "AP75": None}, {"AP": 15.0, "AP50": 22.0, "AP75": 1.0}))
    return Validation(score=lambda _model: next(scores), every=1, keep="last")


def test_a_log_file_gets_lines_with_terms_rate_speed_and_scores(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    run(tmp_path, validation=validation())
    shown = capsys.readouterr().err
    assert "\r" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith(f"test: 4 of {STEPS} (50 %)")]
    for word in (" left", "epoch=1", "loss=", "loss_ld=", "loss_kd=", "rate=", "images/s="):
        assert word in line
    assert caplog.messages[-2:] == [
        "test: epoch 1: AP 12.3, AP50 20.0",
        "test: epoch 2: AP 15.0, AP50 22.0, AP75 1.0",
    ]


@pytest.mark.slow
def test_dvclive_records_every_row_and_score_and_changes_no_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = run(tmp_path)
    monkeypatch.chdir(tmp_path)  # no repository
    monkeypatch.setenv("LDP_LIVE", str(tmp_path / "live"))
    with_it = run(tmp_path, validation=validation())
    assert same_weights(without.model, with_it.model)
    folder = tmp_path / "live" / "test"
    with (folder / "plots" / "metrics" / "loss_ld.tsv").open() as file:
        rows = {int(row["step"]): float(row["loss_ld"]) for row in csv.DictReader(file, delimiter="\t")}
    assert rows == pytest.approx({step: terms["loss_ld"] for step, terms in with_it.curve.items()})
    newest = json.loads((folder / "metrics.json").read_text())
    assert (newest["step"], newest["AP"]) == (STEPS, 15.0)
    assert not (folder / "dvc.yaml").exists()


def test_a_missing_dvclive_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDP_LIVE", str(tmp_path / "live"))
    monkeypatch.setitem(sys.modules, "dvclive", None)
    with pytest.raises(ConfigError, match="LDP_LIVE needs the package dvclive: install it with `uv sync"):
        run(tmp_path)
