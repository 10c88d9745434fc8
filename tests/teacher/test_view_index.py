"""The table of all views does not depend on who makes it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import ensure_loaded
from teacher_cases import small_plan

from pipeline.regions import view_set
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.table import ViewIndex
from pipeline.teacher import view_index
from pipeline.teacher.view_index import build_index
from pipeline.views.geometry import PerEpochViewsConfig


def every_plan(folder: Path) -> list[ViewSet]:
    plan = small_plan(folder, 7)
    drawn = PerEpochViewsConfig(epochs=3, long_edge=64, short_edges=(32, 64), flip_probability=0.5, seed=0)
    nothing = replace(plan, manifest=replace(plan.manifest, images=plan.manifest.images[:0]))
    return [plan, replace(plan, views=drawn), nothing]


@pytest.mark.parametrize("processes", [1, 2])
def test_runs_and_processes_make_the_table_of_all_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    ensure_loaded()
    monkeypatch.setattr(view_index, "VIEWS_PER_RUN", 4)
    monkeypatch.setattr(view_index, "PARALLEL_FROM_VIEWS", 1)
    for plan in every_plan(tmp_path)[: 3 if processes == 1 else 1]:
        table = build_index(plan, processes, lambda items, _total, _label: items)
        assert table.digest() == ViewIndex.from_views(plan).digest()


def test_keys_of_some_rows_are_those_of_all(tmp_path: Path) -> None:
    for plan in every_plan(tmp_path):
        keys = plan.keys()
        assert len(plan) == len(keys)
        assert keys == [planned.key for planned in plan]
        assert keys[3:9] == plan.keys(slice(3, 9))
        assert np.array(keys).reshape(-1, 2).tolist() == sorted(map(list, keys))


def test_remembered_views_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path)
    remembering, found = plan.remembering(), []
    label = view_set.label_view
    monkeypatch.setattr(view_set, "label_view", lambda *args: found.append(args[0]) or label(*args))
    table = build_index(remembering, 1, lambda items, _total, _label: items)
    assert table.digest() == ViewIndex.from_views(remembering.in_rows(slice(None))).digest()
    assert found == plan.keys()
    monkeypatch.setattr(view_set, "MAX_REMEMBERED_VIEWS", len(plan) - 1)
    assert plan.remembering().remembered is None
