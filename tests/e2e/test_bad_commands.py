"""Wrong commands, on a machine that is not as it should be: one clear line, and nothing computed is lost."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from finished import FOLDER, Ended, call, files_below
from wrong_input import (
    CACHE,
    DATA,
    STORE,
    STUDENT,
    TEACHER,
    WEIGHTS,
    Wrong,
    a_file_instead,
    both,
    first_shard,
    params,
    require_one_clear_line,
    written,
)

MACHINE = [
    Wrong(
        does="a device that nobody knows",
        environment={"LDP_DEVICE": "abacus"},
        run=TEACHER,
        says=("LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got 'abacus'",),
    ),
    Wrong(
        does="a device that is not here",
        environment={"LDP_DEVICE": "cuda:99"},
        run=CACHE,
        says=("LDP_DEVICE: expected a device that this machine has, but got 'cuda:99'",),
    ),
    Wrong(
        does="a device that computes nothing",
        environment={"LDP_DEVICE": "meta"},
        run="evaluate ld",
        says=("LDP_DEVICE: expected a device that this machine has",),
    ),
    Wrong(
        does="workers in words",
        environment={"LDP_WORKERS": "many"},
        run="train_student ld",
        says=("LDP_WORKERS: expected a number of processes", "'many'"),
    ),
    Wrong(
        does="more workers than any machine has",
        environment={"LDP_WORKERS": "99999999"},
        run="train_student ld",
        says=("LDP_WORKERS: expected a number of processes up to 1024",),
    ),
    Wrong(
        does="no cache workers",
        environment={"LDP_CACHE_WORKERS": "0"},
        run=CACHE,
        says=("LDP_CACHE_WORKERS: expected a number of processes from 1 to 1024, but got '0'",),
    ),
    Wrong(
        does="a scheduler that is not there",
        environment={"LDP_DASK_SCHEDULER": "tcp://127.0.0.1:9"},
        run=CACHE,
        says=("expected a Dask scheduler at tcp://127.0.0.1:9, but none answers",),
    ),
    Wrong(
        does="a scheduler that is no address",
        environment={"LDP_DASK_SCHEDULER": "nonsense://x"},
        run=CACHE,
        says=("expected a Dask scheduler at nonsense://x",),
    ),
    Wrong(
        does="a log level that nobody knows",
        environment={"LDP_LOG": "loud"},
        run=DATA,
        says=("LDP_LOG: expected a log level such as INFO or DEBUG, but got 'LOUD'",),
    ),
    Wrong(
        does="a file where the outputs go", edit=a_file_instead("runs"), run=DATA, says=("runs/shapes/data",)
    ),
    Wrong(
        does="a file where the metrics go",
        edit=a_file_instead(f"{FOLDER.root}/metrics"),
        run="evaluate ld",
        says=("metrics/ld.json could not be written:", "move it away, and run again"),
    ),
    Wrong(
        does="a file where unfinished work goes",
        edit=a_file_instead("scratch"),
        run=CACHE,
        says=("scratch could not be written: expected a folder at scratch, but a file",),
    ),
    Wrong(
        does="a file where a student goes",
        edit=a_file_instead(FOLDER.student("ld")),
        run="train_student ld",
        says=(
            "could not be written: expected a folder at runs/shapes/students/ld, but a file is in its way",
        ),
    ),
    Wrong(
        does="a file where the report goes",
        edit=a_file_instead(FOLDER.report.parent),
        run="report",
        says=("report/index.html could not be written",),
    ),
]

COMMANDS = [
    Wrong(does="no command", run="ldp", code=2),
    Wrong(does="a command that nobody knows", run="ldp distil", code=2),
    Wrong(does="no action", run="ldp store", code=2),
    Wrong(does="an image id in words", run="ldp store show first", code=2),
    Wrong(does="steps in words", run="ldp trial ld --steps few", code=2),
    Wrong(does="no student", run="train_student", code=2),
    Wrong(does="an option that nobody knows", run="evaluate ld --fast", code=2),
    Wrong(does="an export to nowhere", run="ldp store export", code=2),
    Wrong(
        does="no steps",
        run="ldp trial ld --steps 0",
        says=("ldp trial: --steps: expected 1 or more, but got 0",),
    ),
    Wrong(
        does="a trial of nobody",
        run="ldp trial nobody",
        says=("expected one of plain, ld, but got 'nobody'",),
    ),
    Wrong(
        does="a plain student online",
        run="ldp online plain",
        says=("reads nothing of the teacher; take another",),
    ),
    Wrong(does="a seed below 0", run="ldp seeds plain ld --seeds -1", says=("seed: expected 0 to",)),
    Wrong(
        does="one student to compare",
        run="ldp seeds ld",
        says=("expected two students or more, but got ['ld']",),
    ),
    Wrong(
        does="a store to compare that is nowhere",
        run="ldp seeds plain ld@nowhere --seeds 0",
        edit=lambda _f: None,
        says=("expected a store at", "nowhere"),
    ),
    Wrong(does="an image that is not in the store", run="ldp store show 99", says=("99",)),
    Wrong(
        does="a view that is not in the store",
        run="ldp store show 1 --view 7",
        says=("expected one of the views 0, 1",),
    ),
    Wrong(
        does="a picture of no image",
        run="ldp store show 1 --image nowhere.png",
        says=("nowhere.png: expected an image, but there is none",),
    ),
    Wrong(
        does="a partition that is not there",
        run="ldp store files --partitions 9",
        says=("expected 0 to 3, but got 9",),
    ),
    Wrong(
        does="an export of no views",
        run="ldp store export --output a.npz --views 0",
        says=("--views: expected 1 or more",),
    ),
    Wrong(
        does="an export into a file",
        run="ldp store export --output params.yaml/a.npz",
        says=("params.yaml/a.npz could not be written: expected a folder at params.yaml",),
    ),
    Wrong(
        does="a negative temperature",
        run="ldp store fidelity --temperature -1",
        says=("temperature: expected more than 0",),
    ),
    Wrong(
        does="a temperature that is no number",
        run="ldp store fidelity --temperature nan",
        says=("temperature: expected more than 0, but got nan",),
    ),
    Wrong(
        does="the precision of a quantized store",
        run=f"ldp store fidelity {STORE}",
        says=("expected a lossless store",),
    ),
    Wrong(
        does="no views to time",
        run="ldp bench read --views 0",
        says=("ldp bench read: --views: expected 1 or more",),
    ),
    Wrong(
        does="a store to time that is nowhere",
        run="ldp bench read --store nowhere",
        says=("expected a store at",),
    ),
    Wrong(
        does="a repair by another teacher",
        edit=both(lambda f: first_shard(f).unlink(), lambda f: shutil.copy(f / STUDENT, f / WEIGHTS)),
        run="ldp store repair",
        says=("teacher.weights",),
    ),
    Wrong(
        does="a recipe that nobody knows",
        edit=written("recipes/good.yaml", "name: x\n"),
        run="ldp recipe best",
        says=("ldp recipe: expected one of good, but got 'best'",),
    ),
    Wrong(
        does="a recipe that is not whole",
        edit=written("recipes/good.yaml", "name: x\n"),
        run="ldp recipe good",
        says=("recipes/good.yaml: expected a section 'prepare_data'",),
    ),
    Wrong(
        does="a recipe that is no YAML",
        edit=written("recipes/good.yaml", "["),
        run="ldp recipe good",
        says=("recipes/good.yaml: expected YAML",),
    ),
    Wrong(
        does="a recipe over edited parameters",
        edit=both(
            lambda f: [(f / "recipes").mkdir(), shutil.copy(f / "params.yaml", f / "recipes/good.yaml")],
            params("name", to="mine"),
        ),
        run="ldp recipe good",
        says=("params.yaml has edits that are neither committed nor a recipe", "--force"),
    ),
]


@pytest.mark.parametrize("wrong", MACHINE + COMMANDS, ids=lambda wrong: wrong.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, wrong: Wrong) -> None:
    require_one_clear_line(wrong, own_project)


def test_a_disk_without_room_is_named_and_the_old_outputs_stay(own_project: Path) -> None:
    """A limit on the size of a file stands in for the disk's end: of weights, of JSON, of the page."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(FOLDER.teacher_weights.with_suffix(suffix), f"own{suffix}")
    before = files_below(own_project)
    for stage, output in {
        TEACHER: "checkpoint.pt",
        "train_student ld": "checkpoint.pt",
        "evaluate ld": "precision_recall.csv",
        "report": "index.html",
        "ldp teacher export own.safetensors new.pth": "new.pth",
        DATA: "manifest.json",
    }.items():
        with no_file_above(1000):
            ended = call(stage)
        assert ended.code == 1
        assert f"{output} could not be written: File too large; make room there" in ended.error
        after = files_below(own_project)
        changed = [name for name in before if after.get(name) != before[name]]
        assert not [name for name in changed if not name.endswith(("timing.json", "detections.json"))]
        assert not [name for name in after if name.endswith(".partial")]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As `ulimit -f`; Python ignores the signal that goes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(own_project: Path) -> None:
    FOLDER.metrics("ld").parent.chmod(0o555)
    before = files_below(own_project)
    ended = call("evaluate ld")
    FOLDER.metrics("ld").parent.chmod(0o755)
    assert ended == Ended(code=1, error=ended.error)
    assert "metrics/ld.json could not be written: Permission denied" in ended.error
    assert files_below(own_project) == before
