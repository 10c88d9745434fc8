"""The comparison over seeds: gains are paired, and their standard error is that of the difference."""

import pytest

from pipeline.cli.seeds import compare, render_table
from pipeline.evaluation.coco_ap import SUMMARY


def rows(*values: float) -> list[dict[str, float | None]]:
    return [dict.fromkeys(SUMMARY, value) for value in values]


def test_gains_are_paired_by_seed() -> None:
    """Differences 1, 2, 3: mean 2, standard deviation 1, standard error 1 / sqrt(3)."""
    gains = compare({"plain": rows(10, 20, 30), "ld": rows(11, 22, 33)})
    assert gains["ld"]["AP"]["mean"] == pytest.approx(2)
    assert gains["ld"]["AP"]["standard_error"] == pytest.approx(3**-0.5)


def test_one_seed_has_no_spread_and_missing_sizes_count_nothing() -> None:
    gains = compare({"plain": rows(10), "ld": [{**rows(12)[0], "APl": None}]})
    assert gains["ld"]["AP"] == {"mean": 2.0, "standard_error": 0.0}
    assert gains["ld"]["APl"] == {"mean": None, "standard_error": None}
    assert render_table({"plain": rows(10), "ld": rows(12)}, [0], gains).endswith("+2.00 ± 0.00 | - |")


def test_the_table_has_a_row_for_every_run_and_every_gain() -> None:
    summaries = {"plain": rows(10, 20), "ld": rows(11, 22)}
    lines = render_table(summaries, [0, 1], compare(summaries)).splitlines()
    assert lines[0] == "| student | seed | AP | AP50 | AP75 | APs | APm | APl |"
    assert lines[3].startswith("| plain | 1 | 20.00 |")
    assert lines[-1].startswith("| gain of ld | mean ± s.e. | +1.50 ± 0.50 |")
