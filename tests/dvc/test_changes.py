"""What runs again after which change: DVC is asked in a small project in which everything has run.

A change of a value, an annotation or a pixel is followed by a real ``dvc repro``, because what comes out the
same to the byte ends the chain. A change of code that changes no byte is followed by ``dvc status``, which
names the same stages for less.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something a user or a developer does, and the stages that run because of it: these and no others."""

    does: str
    edit: Edit
    runs: set[str]
    why: str


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


def changes(runs: set[str], why: str, edits: dict[str, Edit]) -> list[Change]:
    """Changes that run the same stages for the same reason."""
    return [Change(does=does, edit=edit, runs=runs, why=why) for does, edit in edits.items()]


def edit_students(edit: Callable[[Any], object]) -> Edit:
    return partial(edit_params, edit=lambda values: edit(values["students"]))


VALUES = [
    *changes(
        TRAIN_LD | REPORT,
        "a student's own key concerns that student; the store holds logits, to which any loss applies",
        {
            "another backbone of one student": params(*LD, "detector", "backbone", to="resnet10"),
            "a student's temperature": params(*LD, "loss", "ld_temperature", to=7.0),
            "a student's batch size": params(*LD, *SCHEDULE, "batch_size", to=2),
        },
    ),
    *changes(
        TRAIN | EVALUATE | REPORT,
        "what all share concerns all",
        {"a seed of all students": params("student", "train", "seed", to=1)},
    ),
    *changes(
        {"train_student@wide", "evaluate_student@wide"} | REPORT,
        "a student is a stage of its own",
        {"a student is added": edit_students(lambda students: students.update(wide=students["plain"]))},
    ),
    *changes(
        REPORT,
        "the page shows one less",
        {"a student is removed": edit_students(lambda students: students.pop("plain"))},
    ),
    *changes(
        STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
        "the plain student reads of the store only which points are in the main region: the same weights",
        {"the precision of the store": params("cache_teacher", "precision", "edge_step", to=0.01)},
    ),
    *changes(
        STORE | TRAIN | EVALUATE | REPORT,
        "students train on the views of the store; the teacher stays",
        {"the list of views": params("cache_teacher", "views", "flips", to=[False])},
    ),
    *changes(
        {"verify_cache"} | REPORT,
        "a check changes no store",
        {"the views that are verified": params("verify_cache", "views", to=3)},
    ),
    *changes(
        EVERYTHING - {"prepare_data", "evaluate_student@plain"},
        "the plain student takes nothing of the teacher: the same weights",
        {"the teacher's schedule": params("prepare_teacher", *SCHEDULE, "learning_rate", to=0.001)},
    ),
    *changes(
        {"check_recipe", "prepare_teacher"} | REPORT,
        "another input is looked for; the weights are the same, but its loss curve and its time are gone",
        {"the same teacher as a weights file": bring_weights},
    ),
    *changes(
        {"evaluate_teacher"} | EVALUATE | REPORT,
        "they sort objects when AP is computed",
        {"the bounds of small and large": params("evaluate", "area_edges", to=[10.0, 30.0])},
    ),
    *changes(
        EVERYTHING,
        "the teacher is trained on them, and all else on the teacher",
        {
            "a training annotation": annotations(move_a_box, "train"),
            "a training picture": invert("train/000000000001.bmp"),
        },
    ),
    *changes(
        {"prepare_data", "evaluate_teacher"} | EVALUATE | REPORT,
        "nobody trains on the validation split: teacher, store and students stay",
        {
            "a validation annotation": annotations(move_a_box, "val"),
            "a validation image": annotations(one_image_less, "val"),
            "a validation picture": invert("val/000001000001.bmp"),
            "a validation parameter": params("prepare_data", "coco", "val", "limit", to=3),
        },
    ),
    *changes(
        {"prepare_data"},
        "no image and no object changed",
        {"another date in the annotations": annotations(new_date, "train", "val")},
    ),
]

NO_VALUE = [
    *changes(
        set(),
        "nothing in core decides a byte, no stage loads a command, and DVC compares values",
        {
            "a comment in params.yaml": comment("params.yaml"),
            **{
                f"a comment in {name}": comment(f"pipeline/core/{name}.py")
                for name in ("progress", "errors", "cluster", "paths", "environment")
            },
            "a command of ldp": comment("pipeline/cli/main.py"),
            "the README": append("README.md", "More.\n"),
            "a README in a folder of code": append("pipeline/codec/README.md", "More.\n"),
        },
    ),
    *changes(
        EVERYTHING,
        "every stage goes from images to views; a large store is accepted as it is, see below",
        {"a docstring of views": docstring("pipeline/views/geometry.py")},
    ),
    *changes(
        {"prepare_data"},
        "the manifests come out the same",
        {"a docstring of the datasets": docstring("pipeline/datasets/coco.py")},
    ),
    *changes(
        STORE | TRAIN | REPORT,
        "the codec writes and reads the store; weights come out the same",
        {"a docstring of the codec": docstring("pipeline/codec/edges.py")},
    ),
    *changes(
        {"verify_cache"} | TRAIN | REPORT,
        "a store is not written by what reads it",
        {"a docstring of the store's reader": docstring("pipeline/store/reader/reader.py")},
    ),
    *changes(
        {"prepare_teacher", "verify_cache"} | TRAIN | REPORT,
        "whoever trains or compares losses; the teacher comes out the same, and the store stays",
        {"a docstring of the losses": docstring("pipeline/losses/distillation.py")},
    ),
    *changes(
        {"prepare_teacher"} | TRAIN | REPORT,
        "whoever trains; the teacher comes out the same, and the store stays",
        {"a docstring of the training loop": docstring("pipeline/training/loop.py")},
    ),
    *changes(
        TRAIN | REPORT,
        "the students; weights come out the same",
        {"a docstring of the student's training": docstring("pipeline/student/train.py")},
    ),
    *changes(
        {"evaluate_teacher"} | TRAIN | EVALUATE | REPORT,
        "a student may be evaluated while it trains, and its best epoch kept",
        {"a docstring of the AP code": docstring("pipeline/evaluation/coco_ap.py")},
    ),
    *changes(
        REPORT,
        "nothing reads the page",
        {
            "a docstring of the report": docstring("pipeline/report/page.py"),
            "the report's template": append("pipeline/report/page.html", "<!-- -->\n"),
        },
    ),
]


def names(change: Change) -> str:
    return change.does


@pytest.mark.slow
@pytest.mark.parametrize("change", VALUES, ids=names)
def test_a_change_runs_its_stages_and_no_others(own_repository: Path, change: Change) -> None:
    change.edit(own_repository)
    assert repro(own_repository) == change.runs, change.why


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


@pytest.mark.parametrize("change", NO_VALUE, ids=names)
def test_code_that_changes_no_byte_runs_what_depends_on_it(restored: Path, change: Change) -> None:
    change.edit(restored)
    assert status(restored) == change.runs, change.why


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
    docstring("pipeline/codec/edges.py")(own_repository)
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
