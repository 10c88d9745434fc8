"""What all experiments with the stage itself share."""

import shutil
from pathlib import Path

import pytest
from store_cases import Content, content_of
from workspace import OUTPUT, complete, without_store


@pytest.fixture
def workspace(finished_project: Path, tmp_path: Path) -> Path:
    """The tiny project, whose store is still to be written."""
    return without_store(shutil.copytree(finished_project, tmp_path / "workspace", symlinks=True))


@pytest.fixture(scope="session")
def quiet(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The store of a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet") / "workspace"
    workspace = without_store(shutil.copytree(finished_project, folder, symlinks=True))
    complete(workspace)
    return content_of(workspace / OUTPUT)
