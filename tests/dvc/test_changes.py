"""What runs again after which change: each is made in a small project, and DVC is asked by `dvc repro`."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from project import DATASET, NAME, Params, commit, edit_params, repro, tiny_project
from safetensors.numpy import load_file, save_file

STUDENTS = ("plain", "ld")
TEACHER = {"prepare_teacher", "evaluate_teacher"}
STORE = {"cache_teacher", "verify_cache"}
TRAIN = {f"train_student@{name}" for name in STUDENTS}
EVALUATE = {f"evaluate_student@{name}" for name in STUDENTS}
LD = {"train_student@ld", "evaluate_student@ld"}
REPORT = {"report"}
EVERYTHING = {"prepare_data"} | TEACHER | STORE | TRAIN | EVALUATE | REPORT

Edit = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something a user or a developer does, and the stages that run because of it: these and no others."""

    does: str
    edit: Edit = field(default=lambda _folder: None)
    environment: dict[str, str] = field(default_factory=dict)
    runs: set[str]


def params(*keys: str, to: object) -> Edit:
    """Set one value of ``params.yaml``."""

    def set_value(values: Params) -> None:
        *path, last = keys
        for key in path:
            values = values[key]
        values[last] = to

    return partial(edit_params, edit=set_value)


def append(name: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(path.read_text() + text)

    return edit


def comment(name: str) -> Edit:
    return append(name, "\n# A remark that changes nothing.\n")


def move_a_box(folder: Path) -> None:
    """Somebody corrects an annotation of the training split."""
    path = folder / DATASET / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][0] += 2
    path.write_text(json.dumps(content))


def add_student(values: Params) -> None:
    values["students"]["wide"] = values["students"]["plain"]


def remove_student(values: Params) -> None:
    del values["students"]["plain"]


def bring_weights(folder: Path) -> None:
    """Take the very teacher that was trained before as a file."""
    weights = folder / "weights" / "mine.safetensors"
    weights.parent.mkdir()
    shutil.copy(folder / f"runs/{NAME}/teacher/model/teacher.safetensors", weights)
    edit_params(
        folder,
        lambda values: values["prepare_teacher"].update(
            source=str(weights.relative_to(folder)), views=None, train=None
        ),
    )


CHANGES = [
    # What the students are made of concerns them alone.
    Change(
        does="another backbone for one student",
        edit=params("students", "ld", "detector", "backbone", to="resnet10"),
        runs=LD | REPORT,
    ),
    Change(
        does="a loss weight", edit=params("students", "ld", "loss", "ld_weight", to=0.5), runs=LD | REPORT
    ),
    Change(
        does="a temperature",
        edit=params("students", "ld", "loss", "ld_temperature", to=7.0),
        runs=LD | REPORT,
    ),
    Change(
        does="a student's schedule",
        edit=params("students", "ld", "train", "schedule", "epochs", to=2),
        runs=LD | REPORT,
    ),
    Change(does="a student's seed", edit=params("students", "ld", "train", "seed", to=1), runs=LD | REPORT),
    Change(
        does="a student's batch size",
        edit=params("students", "ld", "train", "schedule", "batch_size", to=2),
        runs=LD | REPORT,
    ),
    Change(
        does="a student is added",
        edit=partial(edit_params, edit=add_student),
        runs={"train_student@wide", "evaluate_student@wide"} | REPORT,
    ),
    Change(does="a student is removed", edit=partial(edit_params, edit=remove_student), runs=REPORT),
    # The store: the teacher is not trained again, and what comes out the same ends the chain.
    Change(
        does="the threshold of the valuable region",
        edit=params("cache_teacher", "regions", "lower_fraction", to=0.5),
        # The plain student reads the main region alone: the same weights, which need no new evaluation.
        runs=STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
    ),
    Change(
        does="the list of views",
        edit=params("cache_teacher", "views", "flips", to=[False]),
        runs=STORE | TRAIN | EVALUATE | REPORT,
    ),
    Change(
        does="the quantizer's step",
        edit=params("cache_teacher", "precision", "edge_step", to=0.01),
        runs=STORE | TRAIN | {"evaluate_student@ld"} | REPORT,
    ),
    Change(
        does="the views that are verified",
        edit=params("verify_cache", "views", to=3),
        runs={"verify_cache"} | REPORT,
    ),
    # The teacher and the data.
    Change(
        does="the teacher's schedule",
        edit=params("prepare_teacher", "train", "schedule", "learning_rate", to=0.001),
        # The plain student takes nothing of the teacher: the same weights, which need no new evaluation.
        runs=EVERYTHING - {"prepare_data", "evaluate_student@plain"},
    ),
    Change(
        does="the same teacher as a weights file",
        edit=bring_weights,
        # Its loss curve and its time are gone, which the report shows; the weights are the same.
        runs={"prepare_teacher"} | REPORT,
    ),
    Change(does="a corrected annotation", edit=move_a_box, runs=EVERYTHING),
    # Evaluation and report.
    Change(
        does="the bounds of small and large",
        edit=params("evaluate", "area_edges", to=[10.0, 30.0]),
        runs={"evaluate_teacher"} | EVALUATE | REPORT,
    ),
    Change(does="the report's template", edit=append("pipeline/report/page.html", "<!-- -->\n"), runs=REPORT),
    # Code: a remark reruns what imports the module, and what comes out the same ends the chain there.
    Change(
        does="a comment in the distillation losses",
        edit=comment("pipeline/losses/distillation.py"),
        runs={"verify_cache"} | TRAIN | REPORT,
    ),
    Change(
        does="a comment in the student's training",
        edit=comment("pipeline/student/train.py"),
        runs=TRAIN | REPORT,
    ),
    Change(
        does="a comment in the training loop",
        edit=comment("pipeline/training/loop.py"),
        runs={"prepare_teacher"} | TRAIN | REPORT,
    ),
    Change(
        does="a comment in the codec",
        edit=comment("pipeline/codec/edges.py"),
        runs=STORE | TRAIN | REPORT,
    ),
    Change(
        does="a comment in the evaluation",
        edit=comment("pipeline/evaluation/coco_ap.py"),
        # A student may be evaluated while it trains, and its best epoch kept.
        runs={"evaluate_teacher"} | TRAIN | EVALUATE | REPORT,
    ),
    # What changes no byte runs nothing.
    Change(does="a comment in params.yaml", edit=comment("params.yaml"), runs=set()),
    Change(does="a command of ldp", edit=comment("pipeline/cli/seeds.py"), runs=set()),
    Change(does="the README", edit=comment("README.md"), runs=set()),
    Change(does="the number of decoding processes", environment={"LDP_WORKERS": "3"}, runs=set()),
    Change(does="the number of writing processes", environment={"LDP_CACHE_WORKERS": "2"}, runs=set()),
    Change(does="the device", environment={"LDP_DEVICE": "cuda:1"}, runs=set()),
    Change(does="the scheduler", environment={"LDP_DASK_SCHEDULER": "tcp://127.0.0.1:1"}, runs=set()),
    Change(does="the log level", environment={"LDP_LOG": "DEBUG"}, runs=set()),
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything has run."""
    folder = tiny_project(tmp_path_factory.mktemp("changes"))
    assert repro(folder) == EVERYTHING
    commit(folder, "run")
    return folder


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.does)
def test_a_change_runs_its_stages_and_no_others(finished: Path, tmp_path: Path, change: Change) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    change.edit(folder)
    assert repro(folder, **change.environment) == change.runs


def test_other_weights_at_the_same_path_are_noticed(finished: Path, tmp_path: Path) -> None:
    """As when a colleague puts another checkpoint into the place of the first."""
    folder = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    bring_weights(folder)
    repro(folder)
    weights = folder / "weights/mine.safetensors"
    tensors = load_file(weights)
    tensors["bbox_head.gfl_reg.bias"][0] += 1  # of one bin: a softmax is blind to a shift of all
    save_file(tensors, weights)
    assert repro(folder) == EVERYTHING - {"prepare_data", "evaluate_student@plain"}


def test_another_recipe_lies_beside_the_first_and_going_back_computes_nothing(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))
    mine = (folder / "params.yaml").read_bytes()
    edit_params(folder, lambda values: values.update(name="other"))
    params("cache_teacher", "regions", "overlap", to="diou")(folder)
    assert repro(folder) == EVERYTHING
    (folder / "params.yaml").write_bytes(mine)
    shutil.rmtree(folder / ".dvc/cache/runs")  # not by the run cache: both have their own lock entries
    assert repro(folder) == set()
    assert all((folder / f"runs/{name}/cache/targets.zarr/zarr.json").is_file() for name in (NAME, "other"))
