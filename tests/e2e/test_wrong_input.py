"""Wrong parameters, data, files and commands: one clear line, an exit code, and nothing computed is lost."""

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from blank import blank_pictures
from finished import FOLDER, Ended, call, file_size_limit
from store_cases import content_of
from wrong_input import change, take_weights

from pipeline.core import cluster

TABLE = Path(__file__).with_name("wrong_input.txt").read_text().splitlines()
ROWS = [[*line.split(" | "), "", ""][:3] for line in TABLE if line and not line.startswith("#")]
"""A command, changes of a project in which everything had run, and parts of the one line of error.

Without parts argparse prints how the command is used, and ends with code 2.
"""
MAX_CHARACTERS = 1000
"""Of a message."""


@pytest.mark.parametrize(
    ("command", "changes", "says"),
    ROWS,
    ids=[f"{command}: {says.split(' & ')[0]}" for command, _, says in ROWS],
)
def test_one_clear_line_and_nothing_is_lost(
    own_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    changes: str,
    says: str,
) -> None:
    for text in changes.split(" ; "):
        if setting := re.fullmatch(r"([A-Z_]+)=(.*)", text):
            monkeypatch.setenv(*setting.groups())
        else:
            change(own_project, text)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    before = content_of(own_project)
    with blank_pictures():
        ended = call(command)
    assert ended.code == (1 if says else 2)
    assert capsys.readouterr().err.startswith("usage: ") == (not says)
    assert ended.error.startswith("error: ") == bool(says)
    assert "\n" not in ended.error
    assert len(ended.error) < MAX_CHARACTERS
    for part in says.split(" & "):
        assert part in ended.error
    after = content_of(own_project)
    # Work that a run has finished before it fails may be added to scratch/, and nothing else anywhere.
    assert not [name for name in after.keys() - before.keys() if not name.startswith("scratch/")]
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
def test_a_disk_without_room_is_named_and_the_old_outputs_stay(own_project: Path) -> None:
    """A limit on the size of a file stands in for the disk's end: of weights, of JSON, of the page."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(FOLDER.teacher_weights.with_suffix(suffix), f"own{suffix}")
    before = content_of(own_project)
    for stage, output in {
        "prepare_teacher": "checkpoint.pt",
        "train_student ld": "checkpoint.pt",
        "evaluate ld": "precision_recall.csv",
        "report": "index.html",
        "ldp teacher export own.safetensors new.pth": "new.pth",
        "prepare_data": "manifest.json",
    }.items():
        with file_size_limit(1000), blank_pictures():
            ended = call(stage)
        assert ended.code == 1
        assert f"{output} could not be written: File too large; make room there" in ended.error
        after = content_of(own_project)
        changed = [name for name in before if after.get(name) != before[name]]
        assert not [name for name in changed if not name.endswith(("timing.json", "detections.json"))]
        assert not [name for name in after if name.endswith(".partial")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(own_project: Path) -> None:
    FOLDER.metrics("ld").parent.chmod(0o555)
    before = content_of(own_project)
    ended = call("evaluate ld")
    FOLDER.metrics("ld").parent.chmod(0o755)
    assert ended == Ended(code=1, error=ended.error)
    assert "metrics/ld.json could not be written: Permission denied" in ended.error
    assert content_of(own_project) == before


def test_a_store_that_is_too_coarse_leaves_its_figures_and_the_way_out(own_project: Path) -> None:
    change(own_project, "verify_cache.max_kl = 0")
    FOLDER.fidelity.unlink()
    ended = call("verify_cache")
    assert ended.code == 1
    assert "fidelity: expected kl_mean of at most 0" in ended.error
    assert "choose finer steps in cache_teacher.precision" in ended.error
    assert FOLDER.fidelity.is_file()


def test_a_file_that_would_run_code_does_not(own_project: Path) -> None:
    """In whatever place it is offered; the same file does run its code where it is unpickled."""

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (Path("code-ran"),)

    for path in ("a.pth", "a.safetensors", FOLDER.student_weights("ld")):
        torch.save({"state_dict": {}, "meta": Malicious()}, path)
    Path("raw.pth").write_bytes(pickle.dumps(Malicious(), protocol=2))
    take_weights(own_project, "a.safetensors")
    for command, says in {
        "ldp teacher import a.pth": "a.pth: expected a checkpoint of tensors and plain values",
        "ldp teacher import raw.pth": "raw.pth: expected a checkpoint of tensors and plain values",
        "prepare_teacher": "a.safetensors: expected a safetensors file",
        "evaluate ld": "student.safetensors: expected a safetensors file",
        "report": "student.safetensors: expected a safetensors file",
    }.items():
        ended = call(command)
        assert ended.code == 1
        assert says in ended.error
    assert not Path("code-ran").exists()
    pickle.loads(Path("raw.pth").read_bytes())
    assert Path("code-ran").exists()


@pytest.mark.usefixtures("own_project")
def test_a_store_that_may_only_be_read_is_read() -> None:
    paths = [FOLDER.store, *FOLDER.store.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for command in ("train_student ld", "verify_cache", "ldp store info", "ldp store show 1"):
            assert call(command).code == 0
    finally:
        for path in paths:
            path.chmod(0o755)
