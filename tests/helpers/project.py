"""The project as a user has it: a clone of the working tree, in which real git and DVC run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from quick_python import quick_python

from pipeline.datasets.config import ShapesConfig
from pipeline.datasets.shapes.dataset import write_split
from recipes import DATASET, ROOT, Params

MAX_QUEUE_SECONDS = 600


def environment(**changes: str) -> dict[str, str]:
    """One thread, this Python first and starting quickly, and somebody who may commit."""
    path = os.pathsep.join([str(quick_python()), str(Path(sys.executable).parent), os.environ["PATH"]])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LDP_")}
    fixed = {"PATH": path, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    for role in ("AUTHOR", "COMMITTER"):
        fixed |= {f"GIT_{role}_NAME": "A. User", f"GIT_{role}_EMAIL": "user@example.org"}
    return {**kept, **fixed, **changes}


def attempt(folder: Path, *command: str, **changes: str) -> tuple[int, str]:
    """Exit code and output of a command, both streams together."""
    finished = subprocess.run(
        command,
        cwd=folder,
        env=environment(**changes),
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return finished.returncode, finished.stdout


def run(folder: Path, *command: str, **changes: str) -> str:
    """Output of a command that must succeed."""
    code, output = attempt(folder, *command, **changes)
    assert code == 0, f"{' '.join(command)}\n{output[-4000:]}"
    return output


def stages_run(output: str) -> set[str]:
    """Stages that a run of DVC ran: ``cache_teacher``, ``train_student@ld``."""
    return set(re.findall(r"^Running stage '(?:.*:)?(.+)':", output, flags=re.MULTILINE))


def queue_logs(folder: Path) -> list[str]:
    """What every task of DVC's queue wrote, once all have succeeded."""
    for _ in range(MAX_QUEUE_SECONDS):
        status = run(folder, "dvc", "queue", "status")
        tasks = re.findall(r"^([0-9a-f]{7}) .*(Queued|Running|Success|Failed)", status, flags=re.MULTILINE)
        logs = [run(folder, "dvc", "queue", "logs", task) for task, state in tasks if state != "Queued"]
        assert "Failed" not in status, logs
        if "Queued" not in status and "Running" not in status:
            return logs
        time.sleep(1)
    raise AssertionError(status)


def export_tree(folder: Path) -> Path:
    """What git tracks, or would, of the working tree, but for the tests; not yet a repository."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, names):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def commit(folder: Path, message: str) -> None:
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", message)


def start_repository(folder: Path) -> Path:
    """An exported tree becomes a repository with one commit."""
    run(folder, "git", "init", "--quiet", "--initial-branch", "main")
    commit(folder, "start")
    return folder


def edit_params(folder: Path, edit: Callable[[Params], object]) -> None:
    """Change values of ``params.yaml``."""
    params = yaml.safe_load((folder / "params.yaml").read_text())
    edit(params)
    write_params(folder, params)


@contextmanager
def edited_json(path: Path) -> Iterator[Any]:
    """The content of a file, which is written back as it is in the end."""
    content = json.loads(path.read_text())
    yield content
    path.write_text(json.dumps(content))


def write_params(folder: Path, params: Params) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def write_dataset(config: ShapesConfig, root: Path) -> None:
    """Both splits of ``shapes`` in one folder, laid out like a user's COCO."""
    for split in ("train", "val"):
        annotations = root / "annotations" / f"instances_{split}.json"
        write_split(config, split, images=root / split, annotations=annotations)


def write_tiny_dataset(folder: Path, seed: int = 0, train_images: int = 8) -> None:
    """A dozen rendered images in COCO layout where a user would have linked their own."""
    config = ShapesConfig(
        seed=seed, train_images=train_images, val_images=4, long_edge=64, annotation_noise=0.1
    )
    write_dataset(config, folder / DATASET)
