"""What runs again after which change: DVC is asked in a small project in which everything has run.

`.ci/run` goes the whole way with real processes.

A change of a value, an annotation or a pixel is followed by a real ``dvc repro``, because what comes out the
same to the byte ends the chain. A change of code that changes no byte is followed by ``dvc status``, which
names the same stages for less.
"""

import json
import shutil
from pathlib import Path

import pytest
from dvc_in_process import accept, repro, status
from finished import FOLDER, STUDENTS, call, without_times, working_in
from project import edited_json, run
from safetensors.numpy import load_file, save_file
from store_cases import content_of
from wrong_input import change

from recipes import DATASET, NAME

GIVEN = "weights/given.safetensors"
TEACHER = {"prepare_teacher", "evaluate_teacher"}
STORE = {"cache_teacher", "verify_cache"}
TRAIN = {f"train_student@{name}" for name in STUDENTS}
EVALUATE = {f"evaluate_student@{name}" for name in STUDENTS}
TRAIN_LD = {"train_student@ld", "evaluate_student@ld"}
REPORT = {"report"}
EVERYTHING = {"prepare_data"} | TEACHER | STORE | TRAIN | EVALUATE | REPORT

LAST = EVALUATE | REPORT
IMAGES = "datasets/tiny"


def edit(folder: Path, text: str) -> None:
    """A change in words of this file, or of ``wrong_input``."""
    kind, _, name = text.partition(" ")
    path = folder / name
    if kind == "comment":
        path.write_text(path.read_text() + "\n# A remark that changes nothing.\n")
    elif kind == "docstring":
        assert path.read_text().startswith('"""'), name
        path.write_text(path.read_text().replace('"""', '"""Namely: ', 1))
    elif text == "another date":
        for annotations in (folder / DATASET / "annotations").iterdir():
            with edited_json(annotations) as content:
                content["annotations"].reverse()
                content["info"] = {"date_created": "tomorrow"}
    elif text == "the same teacher as a file":
        (folder / "weights").mkdir()
        shutil.copy(folder / f"runs/{NAME}/teacher/model/teacher.safetensors", folder / GIVEN)
        change(folder, f"teacher from {GIVEN}")
    else:
        change(folder, text)


VALUES = {
    # A student's own key concerns that student; the store holds logits, to which any loss applies.
    "students.ld.detector.backbone = resnet10": TRAIN_LD | REPORT,
    "students.ld.loss.ld_temperature = 7.0": TRAIN_LD | REPORT,
    "students.ld.train.batch_size = 2": TRAIN_LD | REPORT,
    "student.train.seed = 1": TRAIN | LAST,
    "students.wide = {}": {"train_student@wide", "evaluate_student@wide"} | REPORT,
    "no students.plain": REPORT,
    # The plain student reads of the store only which points are in the main region: the same weights.
    "cache_teacher.precision.edge_step = 0.01": STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
    "cache_teacher.views.flips = [false]": STORE | TRAIN | LAST,
    "verify_cache.views = 3": {"verify_cache"} | REPORT,
    # The plain student takes nothing of the teacher.
    "prepare_teacher.train.learning_rate = 0.001": EVERYTHING - {"prepare_data", "evaluate_student@plain"},
    # Another input is looked for; the weights are the same, but its loss curve and its time are gone.
    "the same teacher as a file": {"check_recipe", "prepare_teacher"} | REPORT,
    # Objects are sorted when AP is computed.
    "evaluate.area_edges = [10.0, 30.0]": {"evaluate_teacher"} | LAST,
    "train: annotations 0 bbox 0 = 1": EVERYTHING,
    f"{IMAGES}/train/000000000001.bmp inverted": EVERYTHING,
    # Nobody trains on the validation split: teacher, store and students stay.
    "val: annotations 0 bbox 0 = 1": {"prepare_data", "evaluate_teacher"} | LAST,
    f"{IMAGES}/val/000001000001.bmp inverted": {"prepare_data", "evaluate_teacher"} | LAST,
    "prepare_data.coco.val.limit = 3": {"prepare_data", "evaluate_teacher"} | LAST,
    # The same annotations, exported anew in another order: no image and no object changed.
    "another date": {"prepare_data"},
}
"""A change, and the stages that run because of it: these and no others."""

NO_VALUE: dict[str, set[str]] = {
    # Nothing in core decides a byte, no stage loads a command, and DVC compares values.
    **{f"comment pipeline/core/{name}.py": set() for name in ("progress", "errors", "paths", "environment")},
    **{f"comment {name}": set() for name in ("params.yaml", "README.md", "pipeline/cli/main.py")},
    "comment pipeline/codec/README.md": set(),
    "comment pipeline/report/page.html": REPORT,
    "docstring pipeline/views/geometry.py": EVERYTHING,  # a large store is accepted as it is, see below
    "docstring pipeline/datasets/coco.py": {"prepare_data"},
    "docstring pipeline/codec/logits.py": STORE | TRAIN | REPORT,
    "docstring pipeline/store/reader/reader.py": {"verify_cache"} | TRAIN | REPORT,
    "docstring pipeline/losses/distillation.py": {"prepare_teacher", "verify_cache"} | TRAIN | REPORT,
    "docstring pipeline/training/loop.py": {"prepare_teacher"} | TRAIN | REPORT,
    "docstring pipeline/student/train.py": TRAIN | REPORT,
    # A student's best epoch may be kept.
    "docstring pipeline/evaluation/coco_ap.py": {"evaluate_teacher"} | TRAIN | LAST,
    "docstring pipeline/report/page.py": REPORT,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", VALUES)
def test_a_change_runs_its_stages_and_no_others(own_repository: Path, text: str) -> None:
    edit(own_repository, text)
    assert repro(own_repository) == VALUES[text]


@pytest.fixture(scope="module")
def asked(finished_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which nothing runs."""
    folder = tmp_path_factory.mktemp("asked") / "project"
    return Path(shutil.copytree(finished_repository, folder, symlinks=True))


@pytest.mark.parametrize("text", NO_VALUE)
def test_code_that_changes_no_byte_runs_what_depends_on_it(asked: Path, text: str) -> None:
    edit(asked, text)
    assert status(asked) == NO_VALUE[text]
    run(asked, "git", "checkout", "--quiet", ".")


@pytest.mark.slow
def test_from_nothing_every_stage_runs_once_to_the_same_bytes(own_repository: Path) -> None:
    before = without_times(content_of(own_repository / "runs"))
    for folder in ("runs", ".dvc/cache"):
        shutil.rmtree(own_repository / folder)
    (own_repository / "dvc.lock").unlink()
    assert repro(own_repository) == {"check_recipe"} | EVERYTHING
    assert without_times(content_of(own_repository / "runs")) == before
    assert repro(own_repository) == set()


@pytest.mark.slow
def test_every_detector_has_its_metrics(finished_project: Path) -> None:
    for name in (*STUDENTS, "teacher"):
        metrics = json.loads((finished_project / FOLDER.metrics(name)).read_text())
        assert list(metrics) == ["AP", "AP50", "AP75"]


def test_going_back_to_old_parameters_computes_nothing(own_repository: Path) -> None:
    edit(own_repository, "students.ld.loss.ld_weight = 0.5")
    assert repro(own_repository) == TRAIN_LD | REPORT
    edit(own_repository, "students.ld.loss.ld_weight = 1.0")
    assert repro(own_repository) == set()


@pytest.mark.slow
def test_what_runs_again_to_the_same_bytes_ends_the_chain(own_repository: Path) -> None:
    """But for the page, which shows how long a stage took: what `dvc status` cannot know."""
    edit(own_repository, "docstring pipeline/store/writer/writer.py")
    assert status(own_repository) == STORE
    assert repro(own_repository) == STORE | REPORT
    assert repro(own_repository) == set()


@pytest.mark.slow
def test_a_store_is_accepted_as_it_is_after_a_docstring_of_its_code(own_repository: Path) -> None:
    """`dvc commit --force cache_teacher`, then `dvc repro`: `verify_cache` asks the live teacher."""
    store = own_repository / f"runs/{NAME}/cache/targets.zarr/zarr.json"
    written = store.stat().st_mtime_ns
    edit(own_repository, "docstring pipeline/codec/logits.py")
    assert "cache_teacher" in status(own_repository)
    accept(own_repository, "cache_teacher")
    assert repro(own_repository) == {"verify_cache"} | TRAIN | REPORT
    assert store.stat().st_mtime_ns == written
    assert repro(own_repository) == set()


def test_a_file_beside_the_weights_is_noticed_if_their_folder_is_named(own_repository: Path) -> None:
    edit(own_repository, "the same teacher as a file")
    change(own_repository, "prepare_teacher.source = weights")
    with working_in(own_repository):
        assert call("prepare_teacher").code == 0
    accept(own_repository)
    assert status(own_repository) == set()
    (own_repository / "weights/given.json").write_text("{}")
    assert status(own_repository) == {"prepare_teacher"}


@pytest.mark.slow
def test_other_weights_at_the_same_path_are_noticed(own_repository: Path) -> None:
    """As when a colleague puts another checkpoint into the place of the first."""
    edit(own_repository, "the same teacher as a file")
    repro(own_repository)
    weights = own_repository / GIVEN
    tensors = load_file(weights)
    tensors["bbox_head.gfl_reg.bias"][0] += 1  # of one bin: a softmax is blind to a shift of all
    save_file(tensors, weights)
    assert repro(own_repository) == EVERYTHING - {"prepare_data", "evaluate_student@plain"}
