"""What runs again after which change: DVC is asked in a small project in which everything has run.

A change of a value, an annotation or a pixel is followed by a real ``dvc repro``, because what comes out the
same to the byte ends the chain. A change of code that changes no byte is followed by ``dvc status``, which
names the same stages for less.
"""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dvc_in_process import accept, repro, status
from finished import call, working_in
from PIL import Image, ImageChops
from project import edit_params, edited_json, run
from safetensors.numpy import load_file, save_file

from recipes import DATASET, LD, NAME, SCHEDULE, given_teacher, set_value

STUDENTS = ("plain", "ld")
TEACHER = {"prepare_teacher", "evaluate_teacher"}
STORE = {"cache_teacher", "verify_cache"}
TRAIN = {f"train_student@{name}" for name in STUDENTS}
EVALUATE = {f"evaluate_student@{name}" for name in STUDENTS}
TRAIN_LD = {"train_student@ld", "evaluate_student@ld"}
REPORT = {"report"}
EVERYTHING = {"prepare_data"} | TEACHER | STORE | TRAIN | EVALUATE | REPORT

Edit = Callable[[Path], object]


Change = tuple[str, Edit, set[str]]
"""Something a user or a developer does, and the stages that run because of it: these and no others."""


def params(*keys: str, to: object) -> Edit:
    """Set one value of ``params.yaml``."""
    return partial(edit_params, edit=lambda values: set_value(values, keys, to))


def append(name: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text((path.read_text() if path.exists() else "") + text)

    return edit


def comment(name: str) -> Edit:
    return append(name, "\n# A remark that changes nothing.\n")


def docstring(name: str) -> Edit:
    """A word more in a module's docstring."""

    def edit(folder: Path) -> None:
        path = folder / name
        before = path.read_text()
        assert before.startswith('"""'), name
        path.write_text(before.replace('"""', '"""Namely: ', 1))

    return edit


def annotations(change: Callable[[Any], object], *splits: str) -> Edit:
    """Change the annotations of splits."""

    def edit(folder: Path) -> None:
        for split in splits:
            with edited_json(folder / DATASET / f"annotations/instances_{split}.json") as content:
                change(content)

    return edit


def move_a_box(content: Any) -> None:
    """Correct an annotation."""
    content["annotations"][0]["bbox"][0] += 2


def one_image_less(content: Any) -> None:
    """Leave the last image out of a split."""
    last = content["images"].pop()["id"]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] != last]


def new_date(content: Any) -> None:
    """Export the same annotations anew, in another order."""
    content["annotations"].reverse()
    content["info"] = {"date_created": "tomorrow"}


def invert(name: str) -> Edit:
    """Replace a picture by another one of the same name and size."""

    def edit(folder: Path) -> None:
        path = folder / DATASET / name
        with Image.open(path) as old:
            changed = ImageChops.invert(old.convert("RGB"))
        changed.save(path)

    return edit


def bring_weights(folder: Path) -> None:
    """Take the very teacher that was trained before as a file."""
    weights = folder / "weights" / "given.safetensors"
    weights.parent.mkdir()
    shutil.copy(folder / f"runs/{NAME}/teacher/model/teacher.safetensors", weights)
    edit_params(folder, lambda values: given_teacher(values, str(weights.relative_to(folder))))


def edit_students(edit: Callable[[Any], object]) -> Edit:
    return partial(edit_params, edit=lambda values: edit(values["students"]))


LAST = EVALUATE | REPORT
VALUES: list[Change] = [
    # A student's own key concerns that student; the store holds logits, to which any loss applies.
    ("another backbone", params(*LD, "detector", "backbone", to="resnet10"), TRAIN_LD | REPORT),
    ("a student's temperature", params(*LD, "loss", "ld_temperature", to=7.0), TRAIN_LD | REPORT),
    ("a student's batch size", params(*LD, *SCHEDULE, "batch_size", to=2), TRAIN_LD | REPORT),
    ("a seed of all students", params("student", "train", "seed", to=1), TRAIN | LAST),
    (
        "a student is added",
        edit_students(lambda students: students.update(wide=students["plain"])),
        {"train_student@wide", "evaluate_student@wide"} | REPORT,
    ),
    ("a student is removed", edit_students(lambda students: students.pop("plain")), REPORT),
    # The plain student reads of the store only which points are in the main region: the same weights.
    (
        "the precision of the store",
        params("cache_teacher", "precision", "edge_step", to=0.01),
        STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
    ),
    ("the list of views", params("cache_teacher", "views", "flips", to=[False]), STORE | TRAIN | LAST),
    ("the views that are verified", params("verify_cache", "views", to=3), {"verify_cache"} | REPORT),
    # The plain student takes nothing of the teacher.
    (
        "the teacher's schedule",
        params("prepare_teacher", *SCHEDULE, "learning_rate", to=0.001),
        EVERYTHING - {"prepare_data", "evaluate_student@plain"},
    ),
    # Another input is looked for; the weights are the same, but its loss curve and its time are gone.
    ("the same teacher as a file", bring_weights, {"check_recipe", "prepare_teacher"} | REPORT),
    # Objects are sorted when AP is computed.
    ("the bounds of small", params("evaluate", "area_edges", to=[10.0, 30.0]), {"evaluate_teacher"} | LAST),
    ("a training annotation", annotations(move_a_box, "train"), EVERYTHING),
    ("a training picture", invert("train/000000000001.bmp"), EVERYTHING),
    # Nobody trains on the validation split: teacher, store and students stay.
    *(
        (f"a validation {what}", edit, {"prepare_data", "evaluate_teacher"} | LAST)
        for what, edit in {
            "annotation": annotations(move_a_box, "val"),
            "image": annotations(one_image_less, "val"),
            "picture": invert("val/000001000001.bmp"),
            "parameter": params("prepare_data", "coco", "val", "limit", to=3),
        }.items()
    ),
    # No image and no object changed.
    ("another date in the annotations", annotations(new_date, "train", "val"), {"prepare_data"}),
]

NO_VALUE: list[Change] = [
    # Nothing in core decides a byte, no stage loads a command, and DVC compares values.
    ("a comment in params.yaml", comment("params.yaml"), set()),
    *(
        (f"a comment in {name}", comment(f"pipeline/core/{name}.py"), set())
        for name in ("progress", "errors", "cluster", "paths", "environment")
    ),
    ("a command of ldp", comment("pipeline/cli/main.py"), set()),
    ("the README", append("README.md", "More.\n"), set()),
    ("a README in a folder of code", append("pipeline/codec/README.md", "More.\n"), set()),
    ("the report's template", append("pipeline/report/page.html", "<!-- -->\n"), REPORT),
    *(
        (f"a docstring of {name}", docstring(f"pipeline/{name}.py"), runs)
        for name, runs in {
            "views/geometry": EVERYTHING,  # a large store is accepted as it is, see below
            "datasets/coco": {"prepare_data"},
            "codec/logits": STORE | TRAIN | REPORT,
            "store/reader/reader": {"verify_cache"} | TRAIN | REPORT,
            "losses/distillation": {"prepare_teacher", "verify_cache"} | TRAIN | REPORT,
            "training/loop": {"prepare_teacher"} | TRAIN | REPORT,
            "student/train": TRAIN | REPORT,
            "evaluation/coco_ap": {"evaluate_teacher"} | TRAIN | LAST,  # a student's best epoch may be kept
            "report/page": REPORT,
        }.items()
    ),
]


def named(changes: list[Change]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("edit", "runs"), [change[1:] for change in changes], ids=[change[0] for change in changes]
    )


@pytest.mark.slow
@named(VALUES)
def test_a_change_runs_its_stages_and_no_others(own_repository: Path, edit: Edit, runs: set[str]) -> None:
    edit(own_repository)
    assert repro(own_repository) == runs


@pytest.fixture(scope="module")
def asked(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which nothing runs."""
    folder = tmp_path_factory.mktemp("asked") / "project"
    return Path(shutil.copytree(finished_repository, folder, symlinks=True))


@pytest.fixture
def restored(asked: Path) -> Path:
    """The copy, whose code and parameters are as committed."""
    run(asked, "git", "checkout", "--quiet", ".")
    run(asked, "git", "clean", "--quiet", "--force")
    return asked


@named(NO_VALUE)
def test_code_that_changes_no_byte_runs_what_depends_on_it(
    restored: Path, edit: Edit, runs: set[str]
) -> None:
    edit(restored)
    assert status(restored) == runs


@pytest.mark.slow
def test_what_runs_again_to_the_same_bytes_ends_the_chain(own_repository: Path) -> None:
    """But for the page, which shows how long a stage took: what `dvc status` cannot know."""
    docstring("pipeline/store/writer/writer.py")(own_repository)
    assert status(own_repository) == STORE
    assert repro(own_repository) == STORE | REPORT
    assert repro(own_repository) == set()


@pytest.mark.slow
def test_a_store_is_accepted_as_it_is_after_a_docstring_of_its_code(own_repository: Path) -> None:
    """`dvc commit --force cache_teacher`, then `dvc repro`: `verify_cache` asks the live teacher."""
    store = own_repository / f"runs/{NAME}/cache/targets.zarr/zarr.json"
    written = store.stat().st_mtime_ns
    docstring("pipeline/codec/logits.py")(own_repository)
    assert "cache_teacher" in status(own_repository)
    accept(own_repository, "cache_teacher")
    assert repro(own_repository) == {"verify_cache"} | TRAIN | REPORT
    assert store.stat().st_mtime_ns == written
    assert repro(own_repository) == set()


def test_a_file_beside_the_weights_is_noticed_if_their_folder_is_named(own_repository: Path) -> None:
    bring_weights(own_repository)
    params("prepare_teacher", "source", to="weights")(own_repository)
    with working_in(own_repository):
        assert call("prepare_teacher").code == 0
    accept(own_repository)
    assert status(own_repository) == set()
    (own_repository / "weights/given.json").write_text("{}")
    assert status(own_repository) == {"prepare_teacher"}


@pytest.mark.slow
def test_other_weights_at_the_same_path_are_noticed(own_repository: Path) -> None:
    """As when a colleague puts another checkpoint into the place of the first."""
    bring_weights(own_repository)
    repro(own_repository)
    weights = own_repository / "weights/given.safetensors"
    tensors = load_file(weights)
    tensors["bbox_head.gfl_reg.bias"][0] += 1  # of one bin: a softmax is blind to a shift of all
    save_file(tensors, weights)
    assert repro(own_repository) == EVERYTHING - {"prepare_data", "evaluate_student@plain"}
