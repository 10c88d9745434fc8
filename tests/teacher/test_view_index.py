"""The table of all views does not depend on who makes it."""

from dataclasses import replace
from pathlib import Path

import pytest
from forked import ensure_loaded
from teacher_cases import small_view_set

from pipeline.regions import view_set
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.table import ViewIndex
from pipeline.teacher import layout
from pipeline.teacher.layout import build_index
from pipeline.views.geometry import PerEpochViewsConfig


def every_plan(folder: Path) -> list[ViewSet]:
    all_views = small_view_set(folder, 7)
    drawn = PerEpochViewsConfig(epochs=3, long_edge=64, short_edges=(32, 64), flip_probability=0.5, seed=0)
    nothing = replace(all_views, manifest=replace(all_views.manifest, images=all_views.manifest.images[:0]))
    return [all_views, replace(all_views, views=drawn), nothing]


@pytest.mark.parametrize(("workers", "processes"), [(1, False), (2, False), (2, True)])
def test_runs_threads_and_processes_make_the_table_of_all_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, processes: bool
) -> None:
    ensure_loaded()
    monkeypatch.setattr(layout, "VIEWS_PER_RUN", 4)
    monkeypatch.setattr(layout, "PROCESSES_FROM_VIEWS", 1 if processes else 1000)
    for all_views in every_plan(tmp_path)[: 1 if processes else 3]:
        table = build_index(all_views, workers)
        assert table.digest() == ViewIndex.from_views(all_views).digest()


def test_keys_of_some_rows_are_those_of_all(tmp_path: Path) -> None:
    for all_views in every_plan(tmp_path):
        keys = all_views.keys()
        assert len(all_views) == len(keys)
        assert keys == sorted(view.key for view in all_views)
        assert keys[3:9] == all_views.keys(slice(3, 9))


def test_remembered_views_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_views = small_view_set(tmp_path)
    remembering, found = all_views.remembering(), []
    label = view_set.label_views
    monkeypatch.setattr(view_set, "label_views", lambda *args: found.extend(args[0]) or label(*args))
    table = build_index(remembering)
    assert table.digest() == ViewIndex.from_views(remembering.in_rows(slice(None))).digest()
    assert [key for key, *_ in found] == all_views.keys()
    monkeypatch.setattr(view_set, "MAX_REMEMBERED_VIEWS", len(all_views) - 1)
    assert all_views.remembering().remembered is None
