"""DVC as a library that runs the commands of ``dvc.yaml`` in this process: decisions without waits."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from blank import blank_pictures
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from finished import call, working_in

DEFAULT = "dvc.yaml"


@contextmanager
def opened(folder: Path) -> Iterator[Repo]:
    """A repository, in whose folder the process is meanwhile."""
    with working_in(folder), warnings.catch_warnings(), Repo(str(folder)) as repo:
        warnings.filterwarnings("ignore", message="_NoneStep")
        yield repo


def status(folder: Path) -> set[str]:
    """Stages that have changed themselves, as ``dvc status`` lists them."""
    with opened(folder) as repo:
        return set(repo.status(targets=[DEFAULT]))


def repro(folder: Path, target: str = DEFAULT) -> set[str]:
    """``dvc repro``; returns the stages whose command ran."""
    ran: set[str] = set()

    def run_here(_shell: str, command: str, cwd: str, env: dict[str, str], **_options: Any) -> None:
        ran.add(env["DVC_STAGE"].rpartition(":")[2])
        python, module, stage = command.split(maxsplit=2)
        assert (python, module) == ("python", "-m")
        with pytest.MonkeyPatch.context() as patch, blank_pictures():
            patch.chdir(cwd)
            ended = call(stage.removeprefix("stages."))
        if ended.code:
            raise StageCmdFailedError(f"{command}: {ended.error}", ended.code)

    with pytest.MonkeyPatch.context() as patch, opened(folder) as repo:
        patch.setattr("dvc.stage.run._run", run_here)
        repo.reproduce(targets=[target])
    return ran


def accept(folder: Path, target: str = DEFAULT) -> None:
    """``dvc commit --force``: record outputs as they lie there as made by code and parameters as they are."""
    with opened(folder) as repo:
        repo.commit(target, force=True)
