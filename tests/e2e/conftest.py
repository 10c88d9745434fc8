"""What several of these tests start from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("finished", "wrong_input")

from finished import finish, working_in  # noqa: E402


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run, and none may run again."""
    folder = tmp_path_factory.mktemp("finished")
    finish(folder)
    return folder


@pytest.fixture
def own_project(finished_project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of one's own, and the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(finished_project, folder, symlinks=True)
    with working_in(folder):
        yield folder
