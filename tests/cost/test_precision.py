"""Steps that are too coarse are refused before the teacher runs over all views, and finer ones proposed."""

import re
from pathlib import Path

import pytest
from finished import call
from project import edit_params

from recipes import Params


@pytest.mark.slow
def test_the_steps_that_are_proposed_pass_and_nothing_is_begun_without_them(own_project: Path) -> None:
    begun = set(Path("scratch").iterdir())
    set_steps(own_project, 0.1, 0.1)
    error = call("cache_teacher").error
    figures = re.search(
        r"params.yaml: cache_teacher.precision: expected \w+ of at most \S+, but got \S+ on 4 views with "
        r"{edge_step: 0.1, cls_step: 0.1} \((\S+) B a view\); choose {edge_step: (\S+), cls_step: (\S+)} "
        r"\((\S+) B a view\)",
        error,
    )
    assert figures, error
    coarse, edge_step, cls_step, fine = map(float, figures.groups())
    assert edge_step < 0.1
    assert fine > coarse
    assert set(Path("scratch").iterdir()) == begun
    set_steps(own_project, edge_step, cls_step)
    assert call("cache_teacher").code == call("verify_cache").code == 0
    assert set(Path("scratch").iterdir()) == begun


def set_steps(folder: Path, edge_step: float, cls_step: float) -> None:
    def edit(values: Params) -> None:
        values["cache_teacher"]["precision"].update(edge_step=edge_step, cls_step=cls_step)

    edit_params(folder, edit)
