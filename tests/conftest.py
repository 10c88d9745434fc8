"""What all tests share."""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("finished")

# Before torch is loaded: threads that spin while they wait keep the other worker's from running.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: else one of two workers would be left with the longest at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_as_in_a_terminal() -> Iterator[None]:
    """A shell lets its background jobs ignore SIGINT, and so would all that the tests start and interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder in the first worker that needs it; the others wait for it, and none changes it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = shared / name, shared / f"{name}.made"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where eight small images lie, and each store of them that tests read is written once."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def finished_project(once: Once) -> Path:
    """The tiny project in which every stage has run; to be copied before anything is changed."""
    from finished import finish  # noqa: PLC0415

    return once("finished_project", finish)


@pytest.fixture
def own_project(finished_project: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of one's own, and the current folder."""
    from finished import working_in  # noqa: PLC0415

    folder = tmp_path / "project"
    shutil.copytree(finished_project, folder, symlinks=True)
    with working_in(folder):
        yield folder


@pytest.fixture(scope="session")
def finished_repository(finished_project: Path, once: Once) -> Path:
    """The same as a user has it: a repository with the code, in which DVC knows what every stage left."""
    from dvc_in_process import accept  # noqa: PLC0415
    from project import commit, export_tree, start_repository  # noqa: PLC0415

    def make(folder: Path) -> None:
        export_tree(folder)
        shutil.copytree(finished_project, folder, dirs_exist_ok=True)
        shutil.rmtree(folder / "scratch")
        start_repository(folder)
        accept(folder)
        commit(folder, "run")

    return once("finished_repository", make)


@pytest.fixture
def own_repository(finished_repository: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(finished_repository, tmp_path / "project", symlinks=True))
