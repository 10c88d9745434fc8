"""One small workspace for all experiments with the stage itself."""

import shutil
from pathlib import Path

import pytest
from forked import prepare, start_forked
from kills import Quiet, Tool, watch

PARTITIONS = 12


@pytest.fixture(scope="session")
def forked_stage() -> Tool:
    return Tool(name="stage", start=start_forked, stage=lambda run: run.pid)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a teacher; copied for each test that uses it."""
    return prepare(tmp_path_factory.mktemp("prepared"), PARTITIONS)


@pytest.fixture(scope="session")
def quiet(prepared: Path, forked_stage: Tool, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    """A run of the stage that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(prepared, folder / "workspace")
    return watch(forked_stage, folder / "workspace", folder / "quiet.log")


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "workspace"))
