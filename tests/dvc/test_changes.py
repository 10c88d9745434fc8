"""What runs again after which change: DVC is asked in a small project in which everything has run.

A change of a value, an annotation or a pixel is followed by a real ``dvc repro``, because what comes out the
same to the byte ends the chain. A change of code that changes no byte is followed by ``dvc status``, which
names the same stages for less.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from dvc_in_process import accept, repro, status
from finished import call, working_in
from PIL import Image, ImageChops
from project import edit_params, run
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


def move_a_box(split: str) -> Edit:
    """Correct an annotation."""

    def edit(folder: Path) -> None:
        path = folder / DATASET / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        content["annotations"][0]["bbox"][0] += 2
        path.write_text(json.dumps(content))

    return edit


def one_image_less(split: str) -> Edit:
    """Leave the last image out of a split."""

    def edit(folder: Path) -> None:
        path = folder / DATASET / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        last = content["images"].pop()["id"]
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != last]
        path.write_text(json.dumps(content))

    return edit


def invert(name: str) -> Edit:
    """Replace a picture by another one of the same name and size."""

    def edit(folder: Path) -> None:
        path = folder / DATASET / name
        with Image.open(path) as old:
            changed = ImageChops.invert(old.convert("RGB"))
        changed.save(path)

    return edit


def new_date(folder: Path) -> None:
    """Export the same annotations anew, in another order."""
    for path in (folder / DATASET / "annotations").iterdir():
        content = json.loads(path.read_text())
        content["annotations"].reverse()
        path.write_text(json.dumps({"info": {"date_created": "tomorrow"}, **content}))


def bring_weights(folder: Path) -> None:
    """Take the very teacher that was trained before as a file."""
    weights = folder / "weights" / "given.safetensors"
    weights.parent.mkdir()
    shutil.copy(folder / f"runs/{NAME}/teacher/model/teacher.safetensors", weights)
    edit_params(folder, lambda values: given_teacher(values, str(weights.relative_to(folder))))


VALUES = [
    Change(
        does="another backbone of one student",
        edit=params(*LD, "detector", "backbone", to="resnet10"),
        runs=TRAIN_LD | REPORT,
        why="a student's own key concerns that student",
    ),
    Change(
        does="a loss weight",
        edit=params(*LD, "loss", "ld_weight", to=0.5),
        runs=TRAIN_LD | REPORT,
        why="the store holds logits, not losses",
    ),
    Change(
        does="a student's temperature",
        edit=params(*LD, "loss", "ld_temperature", to=7.0),
        runs=TRAIN_LD | REPORT,
        why="the store holds logits, to which any temperature applies",
    ),
    Change(
        does="a student's batch size",
        edit=params(*LD, *SCHEDULE, "batch_size", to=2),
        runs=TRAIN_LD | REPORT,
        why="the schedule of one student is its own",
    ),
    Change(
        does="a seed of all students",
        edit=params("student", "train", "seed", to=1),
        runs=TRAIN | EVALUATE | REPORT,
        why="what all share concerns all",
    ),
    Change(
        does="a student is added",
        edit=partial(
            edit_params, edit=lambda values: values["students"].update(wide=values["students"]["plain"])
        ),
        runs={"train_student@wide", "evaluate_student@wide"} | REPORT,
        why="a student is a stage of its own",
    ),
    Change(
        does="a student is removed",
        edit=partial(edit_params, edit=lambda values: values["students"].pop("plain")),
        runs=REPORT,
        why="the page shows one less",
    ),
    Change(
        does="the precision of the store",
        edit=params("cache_teacher", "precision", "edge_step", to=0.01),
        runs=STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
        why="the plain student reads of the store only which points are in the main region: the same weights",
    ),
    Change(
        does="the list of views",
        edit=params("cache_teacher", "views", "flips", to=[False]),
        runs=STORE | TRAIN | EVALUATE | REPORT,
        why="students train on the views of the store; the teacher stays",
    ),
    Change(
        does="the views that are verified",
        edit=params("verify_cache", "views", to=3),
        runs={"verify_cache"} | REPORT,
        why="a check changes no store",
    ),
    Change(
        does="the teacher's schedule",
        edit=params("prepare_teacher", *SCHEDULE, "learning_rate", to=0.001),
        runs=EVERYTHING - {"prepare_data", "evaluate_student@plain"},
        why="the plain student takes nothing of the teacher: the same weights",
    ),
    Change(
        does="the same teacher as a weights file",
        edit=bring_weights,
        runs={"check_recipe", "prepare_teacher"} | REPORT,
        why="another input is looked for; the weights are the same, but its loss curve and its time are gone",
    ),
    Change(
        does="the bounds of small and large",
        edit=params("evaluate", "area_edges", to=[10.0, 30.0]),
        runs={"evaluate_teacher"} | EVALUATE | REPORT,
        why="they sort objects when AP is computed",
    ),
    Change(
        does="a training annotation",
        edit=move_a_box("train"),
        runs=EVERYTHING,
        why="the teacher is trained on it, and all else on the teacher",
    ),
    Change(
        does="a validation annotation",
        edit=move_a_box("val"),
        runs={"prepare_data", "evaluate_teacher"} | EVALUATE | REPORT,
        why="nobody trains on the validation split: teacher, store and students stay",
    ),
    Change(
        does="a validation image",
        edit=one_image_less("val"),
        runs={"prepare_data", "evaluate_teacher"} | EVALUATE | REPORT,
        why="nobody trains on the validation split: teacher, store and students stay",
    ),
    Change(
        does="a validation picture",
        edit=invert("val/000001000001.bmp"),
        runs={"prepare_data", "evaluate_teacher"} | EVALUATE | REPORT,
        why="its name and its size are the same, its pixels are not",
    ),
    Change(
        does="a training picture",
        edit=invert("train/000000000001.bmp"),
        runs=EVERYTHING,
        why="a teacher of other pixels is another one",
    ),
    Change(
        does="another date in the annotations",
        edit=new_date,
        runs={"prepare_data"},
        why="no image and no object changed",
    ),
    Change(
        does="a validation parameter",
        edit=params("prepare_data", "coco", "val", "limit", to=3),
        runs={"prepare_data", "evaluate_teacher"} | EVALUATE | REPORT,
        why="nobody trains on the validation split: teacher, store and students stay",
    ),
]

NO_VALUE = [
    Change(
        does="a comment in params.yaml",
        edit=comment("params.yaml"),
        runs=set(),
        why="DVC compares values",
    ),
    *(
        Change(does=f"a comment in {name}", edit=comment(f"pipeline/core/{name}.py"), runs=set(), why=why)
        for name, why in {
            "progress": "a progress bar decides no byte",
            "errors": "an error ends a stage, which then leaves nothing",
            "cluster": "where work is done decides no byte",
            "paths": "where outputs lie is also in dvc.yaml, whose change is noticed",
            "environment": "device, workers, log level and batch sizes that change no result decide no byte",
        }.items()
    ),
    Change(
        does="a command of ldp",
        edit=comment("pipeline/cli/main.py"),
        runs=set(),
        why="no stage loads a command",
    ),
    Change(does="the README", edit=append("README.md", "More.\n"), runs=set(), why="no code"),
    Change(
        does="a README in a folder of code",
        edit=append("pipeline/codec/README.md", "More.\n"),
        runs=set(),
        why=".dvcignore holds *.md",
    ),
    Change(
        does="a docstring of views",
        edit=docstring("pipeline/views/geometry.py"),
        runs=EVERYTHING,
        why="every stage goes from images to views; a large store is accepted as it is, see below",
    ),
    Change(
        does="a docstring of the datasets",
        edit=docstring("pipeline/datasets/coco.py"),
        runs={"prepare_data"},
        why="the manifests come out the same",
    ),
    Change(
        does="a docstring of the codec",
        edit=docstring("pipeline/codec/edges.py"),
        runs=STORE | TRAIN | REPORT,
        why="the codec writes and reads the store; weights come out the same",
    ),
    Change(
        does="a docstring of the store's reader",
        edit=docstring("pipeline/store/reader/reader.py"),
        runs={"verify_cache"} | TRAIN | REPORT,
        why="a store is not written by what reads it",
    ),
    Change(
        does="a docstring of the losses",
        edit=docstring("pipeline/losses/distillation.py"),
        runs={"prepare_teacher", "verify_cache"} | TRAIN | REPORT,
        why="whoever trains or compares losses; the teacher comes out the same, and the store stays",
    ),
    Change(
        does="a docstring of the training loop",
        edit=docstring("pipeline/training/loop.py"),
        runs={"prepare_teacher"} | TRAIN | REPORT,
        why="whoever trains; the teacher comes out the same, and the store stays",
    ),
    Change(
        does="a docstring of the student's training",
        edit=docstring("pipeline/student/train.py"),
        runs=TRAIN | REPORT,
        why="the students; weights come out the same",
    ),
    Change(
        does="a docstring of the AP code",
        edit=docstring("pipeline/evaluation/coco_ap.py"),
        runs={"evaluate_teacher"} | TRAIN | EVALUATE | REPORT,
        why="a student may be evaluated while it trains, and its best epoch kept",
    ),
    Change(
        does="a docstring of the report",
        edit=docstring("pipeline/report/page.py"),
        runs=REPORT,
        why="nothing reads the page",
    ),
    Change(
        does="the report's template",
        edit=append("pipeline/report/page.html", "<!-- -->\n"),
        runs=REPORT,
        why="nothing reads the page",
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
