"""The training stage as a user runs it: in one process or several, killed, interrupted, in error."""

import os
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from finished import FOLDER, call, working_in
from forked import Fate, Run, start, start_process, stop_after
from msgspec import to_builtins
from msgspec.structs import replace
from project import edit_params
from safetensors.torch import load_file
from training_cases import FULL, largest_difference, student
from wrong_input import change

from pipeline.core.errors import ConfigError
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import ValidationConfig
from pipeline.training.checkpoints import run_key
from recipes import DATASET, ROOT, Params

EPOCHS = 12
WAIT_SECONDS = 90

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]


@pytest.fixture(scope="module")
def prepared(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project, in which a student of more epochs is still to be trained."""
    folder = tmp_path_factory.mktemp("workspace") / "project"
    shutil.copytree(finished_project, folder, symlinks=True)
    for trained in ("scratch", FOLDER.student("ld")):
        shutil.rmtree(folder / trained)
    validation = ValidationConfig(split="val", every=5, keep="last", scale=(64, 64))
    config = student(FULL, epochs=EPOCHS, batch_size=4, norm_eval=True)

    def edit(params: Params) -> None:
        params["students"] = {"ld": to_builtins(replace(config, validation=validation))}
        params["student"]["validation"] = {"split": "val", "scale": [64, 64]}

    edit_params(folder, edit)
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return Path(shutil.copytree(prepared, tmp_path / "project", symlinks=True))


def begin(folder: Path, processes: int, workers: int = 0, fate: Fate | None = None) -> Run:
    log = folder.with_name(f"{folder.name}_{time.monotonic_ns()}.log")
    settings = {"LDP_WORKERS": str(workers), "LDP_TRAIN_PROCESSES": str(processes)}
    # A checkpoint after each step, for a row of so short a curve is a step.
    return start("train_student ld", folder, log, fate, LDP_CHECKPOINT_SECONDS="0", **settings)


def finish(run: Run) -> str:
    """What a run that ends well has logged."""
    assert run.wait() == 0, run.text()
    return run.text()


def wait_until_gone(run: Run) -> None:
    """Until also those that it started have ended."""
    end = time.monotonic() + WAIT_SECONDS
    while run.members():
        assert time.monotonic() < end, "processes outlive the run"
        time.sleep(0.02)


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("scratch/training/*/checkpoint.pt"))


def begin_two(folder: Path) -> Run:
    """Two processes that have saved something."""
    run = begin(folder, 2)
    run.wait_for(lambda: checkpoints(folder))
    assert checkpoints(folder), run.text()
    return run


@pytest.fixture(scope="module")
def straight(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of one undisturbed process."""
    work = shutil.copytree(prepared, tmp_path_factory.mktemp("straight") / "project", symlinks=True)
    finish(begin(work, 1))
    assert not list(work.glob("scratch/training/*"))
    return work / FOLDER.student("ld")


def assert_nearly_the_same(folder: Path, straight: Path) -> None:
    weights, expected = (load_file(path / "model/student.safetensors") for path in (folder, straight))
    assert largest_difference(weights, expected) <= 1e-4
    rows, expected_rows = ((path / "loss.csv").read_text().splitlines() for path in (folder, straight))
    assert len(rows) == len(expected_rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stage_killed_within_an_epoch_goes_on_to_the_same_bytes(
    workers: int, folder: Path, straight: Path
) -> None:
    """Decoding processes do not outlive it, nor hold its lock."""
    fate = partial(stop_after, "pipeline.training.checkpoints.Checkpoints.save", 5)
    killed = begin(folder, 1, workers, fate)
    killed.wait_until_stopped()
    os.kill(killed.pid, signal.SIGKILL)  # and not those that it has started
    killed.wait()
    output = finish(begin(folder, 1, workers))
    wait_until_gone(killed)
    assert "ld: going on after step 5 of 24" in output, "in the middle of an epoch of two"
    for name in ("model/student.safetensors", "loss.csv", "ap.csv"):
        assert (folder / FOLDER.student("ld") / name).read_bytes() == (straight / name).read_bytes(), name
    rows = (straight / "ap.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "5", "10", "12"]
    assert not list(folder.glob("scratch/training/*"))


def test_two_processes_train_the_same_student_also_after_a_kill(folder: Path, straight: Path) -> None:
    """The kill takes the one process that started the others; they must not train on without it."""
    killed = begin_two(folder)
    os.kill(killed.pid, signal.SIGKILL)
    wait_until_gone(killed)
    output = finish(begin(folder, 2))
    assert output.count("ld: going on after step") == 1
    assert_nearly_the_same(folder / FOLDER.student("ld"), straight)


@pytest.mark.parametrize(
    ("launcher", "processes"),
    [([], "2"), (["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"], "1")],
    ids=["by itself", "torchrun"],
)
def test_real_processes_train_the_same_student(
    launcher: list[str], processes: str, folder: Path, straight: Path
) -> None:
    """Started as a shell starts them, the other tests' are forked."""
    command = [sys.executable, "-m", *launcher, "stages.train_student", "ld"]
    settings = {"PYTHONPATH": str(ROOT), "LDP_TRAIN_PROCESSES": processes}
    finish(start_process(command, folder, folder / "log", **settings))
    assert_nearly_the_same(folder / FOLDER.student("ld"), straight)


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (2, 0), (2, 2)])
def test_an_error_in_one_process_is_one_line_and_ends_all(processes: int, workers: int, folder: Path) -> None:
    image = DATASET / "train/000000000003.bmp"
    (folder / image).unlink()
    run = begin(folder, processes, workers)
    assert run.wait() == 1
    errors = [line for line in run.text().splitlines() if "rror" in line or "fail" in line]
    assert errors == [f"error: {image}: expected an image, but there is none"]
    wait_until_gone(run)
    assert not (folder / FOLDER.student_weights("ld")).exists()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_stops_ends_the_others_with_one_line(
    rank: int, sent: signal.Signals, folder: Path
) -> None:
    run = begin_two(folder)
    os.kill(run.members()[1 + rank], sent)
    assert run.wait(seconds=60) == 1
    what = "was killed" if sent == signal.SIGKILL else "has been stopped"
    errors = [line for line in run.text().splitlines() if "rror" in line or "Traceback" in line]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: training process {rank} {what}")
    wait_until_gone(run)


def test_processes_listen_to_this_machine_alone_and_an_interrupt_stops_all(folder: Path) -> None:
    run = begin_two(folder)
    connections = [each for pid in run.members()[1:] for each in psutil.Process(pid).net_connections("tcp")]
    addresses = {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
    run.signal(signal.SIGINT)
    assert run.wait() == 130, run.text()
    assert "Traceback" not in run.text()
    wait_until_gone(run)
    assert addresses, "the processes talk to one another"
    assert addresses <= {"127.0.0.1", "::1"}


def test_another_parameter_is_another_run_and_another_store_of_the_same_fingerprint_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def stop(label: str, made_from: dict[str, object]) -> str:
        keys.append(run_key(label, made_from))
        raise ConfigError("enough")

    monkeypatch.setattr("stages.train_student.run_key", stop)
    with working_in(folder):
        for changed in ("-", "-", "students.ld.train.seed = 1"):
            change(folder, changed)
            assert call("train_student ld").error == "error: enough"
        other = TargetStore.open(FOLDER.store)
        other.content_sha256 = "another"
        monkeypatch.setattr(TargetStore, "open", lambda _path: other)
        call("train_student ld")
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
