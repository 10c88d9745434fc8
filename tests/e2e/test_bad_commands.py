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
    require_one_clear_line,
    written,
    wrong,
)

MACHINE = [
    wrong(
        "a device that nobody knows",
        TEACHER,
        "LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got 'abacus'",
        environment={"LDP_DEVICE": "abacus"},
    ),
    wrong(
        "a device that is not here",
        CACHE,
        "LDP_DEVICE: expected a device that this machine has, but got 'cuda:99'",
        environment={"LDP_DEVICE": "cuda:99"},
    ),
    wrong(
        "a device that computes nothing",
        "evaluate ld",
        "LDP_DEVICE: expected a device that this machine has",
        environment={"LDP_DEVICE": "meta"},
    ),
    wrong(
        "workers in words",
        "train_student ld",
        "LDP_WORKERS: expected an integer",
        "'many'",
        environment={"LDP_WORKERS": "many"},
    ),
    wrong(
        "more workers than any machine has",
        "train_student ld",
        "LDP_WORKERS: expected an integer <= 1024",
        environment={"LDP_WORKERS": "99999999"},
    ),
    wrong(
        "no cache workers",
        CACHE,
        "LDP_CACHE_WORKERS: expected an integer >= 1",
        environment={"LDP_CACHE_WORKERS": "0"},
    ),
    wrong(
        "an evaluation in batches of nothing",
        "evaluate ld",
        "LDP_EVAL_BATCH: expected an integer >= 1",
        environment={"LDP_EVAL_BATCH": "0"},
    ),
    wrong(
        "a scheduler that is not there",
        CACHE,
        "expected a Dask scheduler at tcp://127.0.0.1:9, but none answers",
        environment={"LDP_DASK_SCHEDULER": "tcp://127.0.0.1:9"},
    ),
    wrong(
        "a scheduler that is no address",
        CACHE,
        "expected a Dask scheduler at nonsense://x",
        environment={"LDP_DASK_SCHEDULER": "nonsense://x"},
    ),
    wrong(
        "a log level that nobody knows",
        DATA,
        "LDP_LOG: expected one of 'DEBUG', 'INFO'",
        environment={"LDP_LOG": "loud"},
    ),
    wrong("a file where the outputs go", DATA, "runs/shapes/data", edit=a_file_instead("runs")),
    wrong(
        "a file where the metrics go",
        "evaluate ld",
        "metrics/ld.json could not be written:",
        "move it away, and run again",
        edit=a_file_instead(f"{FOLDER.root}/metrics"),
    ),
    wrong(
        "a file where unfinished work goes",
        CACHE,
        "scratch could not be written: expected a folder at scratch, but a file",
        edit=a_file_instead("scratch"),
    ),
    wrong(
        "a file where a student goes",
        "train_student ld",
        "could not be written: expected a folder at runs/shapes/students/ld, but a file is in its way",
        edit=a_file_instead(FOLDER.student("ld")),
    ),
    wrong(
        "a file where the report goes",
        "report",
        "report/index.html could not be written",
        edit=a_file_instead(FOLDER.report.parent),
    ),
]

COMMANDS = [
    wrong("no command", "ldp", code=2),
    wrong("a command that nobody knows", "ldp distil", code=2),
    wrong("no action", "ldp store", code=2),
    wrong("an image id in words", "ldp store show first", code=2),
    wrong("seeds in words", "ldp seeds --seeds few", code=2),
    wrong("no student", "train_student", code=2),
    wrong("an option that nobody knows", "evaluate ld --fast", code=2),
    wrong("a seed below 0", "ldp seeds plain ld --seeds -1", "seeds.seed: expected an integer >= 0"),
    wrong("one student to compare", "ldp seeds ld", "expected two students or more, but got ['ld']"),
    wrong(
        "a store to compare that is nowhere",
        "ldp seeds plain ld@nowhere --seeds 0",
        "expected a store at",
        "nowhere",
        edit=lambda _f: None,
    ),
    wrong("an image that is not in the store", "ldp store show 99", "99"),
    wrong("a view that is not in the store", "ldp store show 1 --view 7", "expected one of the views 0, 1"),
    wrong(
        "a picture of no image",
        "ldp store show 1 --image nowhere.png",
        "nowhere.png: expected an image, but there is none",
    ),
    wrong("a partition that is not there", "ldp store files --partitions 9", "expected 0 to 3, but got 9"),
    wrong(
        "a negative temperature",
        "ldp store fidelity --temperature -1",
        "temperature: expected a number > 0.0, but got -1.0",
    ),
    wrong(
        "a temperature that is no number",
        "ldp store fidelity --temperature nan",
        "temperature: expected a number > 0.0, but got nan",
    ),
    wrong(
        "the precision of a quantized store",
        f"ldp store fidelity --stored {STORE}",
        "expected a lossless store",
    ),
    wrong(
        "a repair by another teacher",
        "ldp store repair",
        "teacher.weights",
        edit=both(lambda f: first_shard(f).unlink(), lambda f: shutil.copy(f / STUDENT, f / WEIGHTS)),
    ),
    wrong(
        "a recipe that nobody knows",
        "ldp recipe check best",
        "recipe: expected a name (shapes, x), a folder or a file, but got 'best'",
        edit=written("recipes/good/params.yaml", "name: x\n"),
    ),
    wrong(
        "a recipe that is not whole",
        "ldp recipe check good",
        "recipes/good/params.yaml: expected a section 'prepare_teacher'",
        edit=written("recipes/good/params.yaml", "name: x\n"),
    ),
    wrong(
        "a recipe that is no YAML",
        "ldp recipe check good",
        "recipes/good/params.yaml: expected YAML",
        edit=written("recipes/good/params.yaml", "["),
    ),
    wrong(
        "a new recipe over an old one",
        "ldp recipe new good --from tiny",
        "recipes/good: expected a new name; an existing recipe is never overwritten",
        edit=written("recipes/good/params.yaml", "name: good\n"),
    ),
]


@pytest.mark.parametrize("row", MACHINE + COMMANDS, ids=lambda row: row.does)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)


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
