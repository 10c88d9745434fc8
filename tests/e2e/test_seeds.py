"""The comparison over seeds: gains are paired, and their standard error is that of the difference."""

import shutil
from pathlib import Path

import pytest
from finished import call
from wrong_input import change

from pipeline.cli.seeds import compare, deciding_folders, render_table, run_key
from pipeline.core.config import load_section
from pipeline.core.paths import SPLITS, run_paths
from pipeline.evaluation.coco_ap import SUMMARY
from pipeline.evaluation.config import EvaluateConfig
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from recipes import ROOT


def test_gains_are_paired_by_seed_and_sizes_that_no_object_has_count_nothing() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, standard error 1 / sqrt(3)."""
    by_student = {"plain": (10.0, 20.0, 30.0), "ld": (11.0, 22.0, 33.0)}
    summaries = {name: [{"AP": value} for value in values] for name, values in by_student.items()}
    gain = compare(summaries)["ld"]["AP"]
    assert gain == pytest.approx({"mean": 2, "standard_error": 3**-0.5})
    lines = render_table(summaries, [0, 1, 5]).splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert table[0] == ["student", "seed", *SUMMARY]
    assert table[4] == ["plain", "5", "30.00", *"-----"]
    assert table[-1] == ["gain of ld", "mean ± s.e.", "+2.00 ± 0.58", *"-----"]
    one_seed = {name: rows[:1] for name, rows in summaries.items()}
    assert compare(one_seed) == {"ld": {"AP": {"mean": 1.0, "standard_error": 0.0}}}


def test_a_kept_run_is_found_by_all_that_decides_it(
    own_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's content, either split, the parameters of student and evaluation, and the code."""

    def key() -> str:
        config = load_section(StudentConfig, "students.ld")
        return run_key(config, load_section(EvaluateConfig, "evaluate"), TargetStore.open(run_paths().store))

    assert key() == key()
    keys = [key()]
    for split in SPLITS:
        manifest = run_paths().manifest(split)
        manifest.write_text(manifest.read_text() + "\n")
        keys.append(key())
    for text in ("student.loss.ld_temperature = 5.0", "evaluate.area_edges = [9, 36]"):
        change(own_project, text)
        keys.append(key())
    shutil.rmtree(run_paths().store)
    shutil.copytree(ROOT / "tests/store/format_3.zarr", run_paths().store)
    keys.append(key())
    assert {"losses", "student", "evaluation", "views"} <= deciding_folders()
    assert not deciding_folders() & {"cli", "core", "report"}
    monkeypatch.setattr("pipeline.cli.seeds.deciding_folders", lambda: set())
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_a_finished_run_is_kept_and_a_damaged_one_made_again(
    own_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def train(*arguments: object) -> dict[str, float]:
        made.append(str(arguments[-1]))
        return dict.fromkeys(SUMMARY, float(len(made)))

    monkeypatch.setattr("pipeline.cli.seeds._train_and_evaluate", train)
    command = "ldp seeds plain ld --seeds 0"
    assert "nowhere, but it has no zarr.json" in call("ldp seeds ld ld@nowhere").error
    assert made == []
    assert [call(command).code, call(command).code] == [0, 0]
    assert made == ["plain seed 0", "ld seed 0"]
    for kept in (own_project / "scratch/seeds").iterdir():
        kept.write_bytes(kept.read_bytes()[:20])
    assert call(command).code == 0
    assert made == ["plain seed 0", "ld seed 0"] * 2
