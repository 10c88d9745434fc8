"""Wrong commands, on a machine that is not as it should be: one clear line, and nothing computed is lost."""

import os
import shutil
from pathlib import Path

import pytest
from blank import blank_pictures
from finished import FOLDER, Ended, call, file_size_limit, files_below
from wrong_input import (
    CACHE,
    DATA,
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

ENVIRONMENT = """
    prepare_data | LDP_LOG=loud | LDP_LOG: expected one of 'DEBUG', 'INFO'
    prepare_teacher | LDP_DEVICE=abacus | expected a torch device such as cpu or cuda:0, but got 'abacus'
    cache_teacher | LDP_DEVICE=cuda:99 | expected a device that this machine has, but got 'cuda:99'
    evaluate ld | LDP_DEVICE=meta | LDP_DEVICE: expected a device that this machine has
    evaluate ld | LDP_EVAL_BATCH=0 | LDP_EVAL_BATCH: expected an integer >= 1
    cache_teacher | LDP_DASK_SCHEDULER=tcp://127.0.0.1:9 | scheduler at tcp://127.0.0.1:9, but none answers
    cache_teacher | LDP_DASK_SCHEDULER=nonsense://x | expected a Dask scheduler at nonsense://x
    """
"""A stage, a variable that is wrong, and parts of the error."""

COMMANDS = """
    ldp seeds plain ld --seeds -1 | --seeds: expected different numbers from 0 to 2147483647, but got [-1]
    ldp seeds plain ld --seeds 1 1 | --seeds: expected different numbers
    ldp seeds plain ld --seeds 99999999999 | --seeds: expected different numbers
    ldp seeds ld | expected two students or more, but got ld
    ldp seeds plain ld@nowhere --seeds 0 | expected a store at & nowhere
    ldp store show 99 | 99
    ldp store show 1 --view 7 | expected one of the views 0, 1
    ldp rehearse -S students.ld.train.sed=1 | sed
    ldp rehearse -S students.ld.train.seed=high | students.ld
    ldp rehearse -S name | -S: expected KEY=VALUE, but got 'name'
    ldp rehearse --images 0 | --images: expected 1 or more, but got 0
    ldp rehearse --keep runs | --keep: expected a new folder, but runs is there
    ldp rehearse nowhere.yaml | recipe: expected a name (shapes), a folder or a file, but got 'nowhere.yaml'
    ldp bench --views 0 | --views: expected 1 or more, but got 0
    ldp plan --images 0 | --images: expected 1 or more, but got 0
    ldp bench --student plain | students.plain: expected a student that reads the teacher
    ldp bench -S name.first=1 | -S name.first: expected a section 'name', but it is 'shapes'
    ldp bench -S student.train.seed=[ | -S student.train.seed: expected YAML
    ldp store files --partitions 9 | expected 0 to 3, but got 9
    """
"""A command, and parts of the error."""

USAGE = (
    *("ldp store show 1 --output params.yaml", "ldp picture --output params.yaml"),
    *("ldp seeds --json params.yaml", f"ldp teacher export {WEIGHTS} params.yaml"),
    *("ldp", "ldp distil", "ldp store", "ldp store show first", "ldp seeds --seeds few"),
    *("train_student", "evaluate ld --fast"),
)
"""Commands that are no commands."""

RECIPES = {
    "ldp recipe check best": "recipe: expected a name (shapes, good), a folder or a file, but got 'best'",
    "ldp recipe check good": "recipes/good/params.yaml: expected a section 'prepare_teacher'",
    "ldp recipe new good --from tiny": "recipes/good: expected a new name; an existing recipe is never over",
}
"""Where there is a recipe of that name, and no more."""


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(" | ")] for line in table.strip().splitlines()]


ROWS = [
    *(
        wrong(stage, *says.split(" & "), environment=dict([setting.split("=")]))
        for stage, setting, says in cells(ENVIRONMENT)
    ),
    *(wrong(command, *says.split(" & ")) for command, says in cells(COMMANDS)),
    *(wrong(command, code=2) for command in USAGE),
    *(
        wrong(command, says, edit=written("recipes/good/params.yaml", "name: good\n"))
        for command, says in RECIPES.items()
    ),
    wrong(
        "ldp recipe check good",
        "recipes/good/params.yaml: expected YAML",
        edit=written("recipes/good/params.yaml", "["),
    ),
    *(
        wrong(stage, *says, edit=a_file_instead(place))
        for place, stage, *says in (
            ("runs", DATA, "runs/shapes/data"),
            (FOLDER.root / "metrics", "evaluate ld", "metrics/ld.json could not be written:", "is no folder"),
            ("scratch", CACHE, "scratch could not be written: File exists"),
            (FOLDER.student("ld"), "train_student ld", "runs/shapes/students/ld is no folder"),
            (FOLDER.report.parent, "report", "report/index.html could not be written"),
        )
    ),
    wrong(
        "ldp store repair",
        "teacher.weights",
        edit=both(lambda f: first_shard(f).unlink(), lambda f: shutil.copy(f / STUDENT, f / WEIGHTS)),
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_one_clear_line_and_nothing_is_lost(own_project: Path, row: Wrong) -> None:
    require_one_clear_line(row, own_project)


@pytest.mark.slow
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
        with file_size_limit(1000), blank_pictures():
            ended = call(stage)
        assert ended.code == 1
        assert f"{output} could not be written: File too large; make room there" in ended.error
        after = files_below(own_project)
        changed = [name for name in before if after.get(name) != before[name]]
        assert not [name for name in changed if not name.endswith(("timing.json", "detections.json"))]
        assert not [name for name in after if name.endswith(".partial")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(own_project: Path) -> None:
    FOLDER.metrics("ld").parent.chmod(0o555)
    before = files_below(own_project)
    ended = call("evaluate ld")
    FOLDER.metrics("ld").parent.chmod(0o755)
    assert ended == Ended(code=1, error=ended.error)
    assert "metrics/ld.json could not be written: Permission denied" in ended.error
    assert files_below(own_project) == before
