"""What all experiments with the stage itself share; ``LDP_STRESS`` makes each of them larger."""

import os
import shutil
from pathlib import Path

import pytest
from workspace import STAGE, Quiet, prepare, watch


@pytest.fixture(scope="session")
def factor() -> int:
    """How many times larger than in a run of all tests."""
    return int(os.environ.get("LDP_STRESS", "1"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a teacher; copied for each test that uses it."""
    folder = tmp_path_factory.mktemp("prepared") / "workspace"
    prepare(folder, STAGE)
    return folder


@pytest.fixture(scope="session")
def quiet(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Quiet:
    """A run of the stage that nobody disturbs."""
    folder = tmp_path_factory.mktemp("quiet")
    shutil.copytree(prepared, folder / "workspace")
    return watch(STAGE, folder / "workspace", folder / "quiet.log")


@pytest.fixture
def workspace(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "workspace"))
