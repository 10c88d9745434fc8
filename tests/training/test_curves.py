"""What a training records and shows: means over steps, the first bad step, a log's lines, DVCLive's files."""

import csv
import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from training_cases import FULL, HERE, same_weights, student, taught

from pipeline.core import progress
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.training.curves import Curve, log_interval
from pipeline.training.loop import Trained, Validation

EPOCHS, STEPS = 2, 8


def add_all(curve: Curve, values: list[float]) -> None:
    for value in values:
        curve.add({"loss_cls": torch.tensor(value), "loss_bbox": torch.tensor(1.0)})


def test_a_row_is_the_mean_of_its_steps() -> None:
    curve = Curve(2, HERE)
    add_all(curve, [1.0, 3.0, 5.0])
    assert curve.rows == {2: {"loss_cls": 2.0, "loss_bbox": 1.0}}


@pytest.mark.parametrize(("step", "bad"), [(0, "nan"), (4, "inf"), (9, "-inf")])
def test_the_first_bad_step_is_named_when_its_row_is_complete_or_flushed(step: int, bad: str) -> None:
    values = [float(bad) if number >= step else 1.0 for number in range(10)]
    message = rf"^step {step}: expected a finite loss, but got loss_cls=.*loss_bbox=1"
    with pytest.raises(PipelineError, match=message):
        add_all(Curve(5, HERE), values)
    unfinished = Curve(100, HERE)
    add_all(unfinished, values)
    with pytest.raises(PipelineError, match=message):
        unfinished.flush()


def test_a_short_run_has_a_curve_too() -> None:
    assert [log_interval(steps) for steps in (1, 39, 40, 399, 400, 10**6)] == [1, 1, 2, 19, 20, 20]


def run(folder: Path, **options: object) -> Trained:
    return taught(student(FULL, epochs=EPOCHS), folder, **options)


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
