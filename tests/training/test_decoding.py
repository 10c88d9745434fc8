"""Processes that decode: whatever befalls them is one line, as without them, and nothing hangs."""

import os
import shutil
import signal
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from teacher_cases import QUANTIZED, small_view_set
from training_cases import FULL, HERE, IMAGES, store_of, student, trained

from pipeline.core.errors import DatasetError, PipelineError
from pipeline.student.targets import StoreSource
from pipeline.training import dataset
from pipeline.views.pyramid import Grid
from pipeline.views.types import ViewKey

Usage = namedtuple("Usage", "total used free")
MB = 10**6


@pytest.fixture
def train(tmp_path: Path) -> Callable[[int], object]:
    """Train with a number of decoding processes."""
    view_set, store = small_view_set(tmp_path, IMAGES), store_of(tmp_path, QUANTIZED)
    return lambda workers: trained(student(FULL), store, view_set, replace(HERE, workers=workers))


def befalls_a_decoder(what: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something happen in each decoding process when it reads its first view."""
    load, known = StoreSource.load, {os.getpid()}

    def strange(source: StoreSource, keys: Sequence[ViewKey], grid: Grid) -> object:
        if os.getpid() not in known:
            known.add(os.getpid())
            what()
        return load(source, keys, grid)

    monkeypatch.setattr(StoreSource, "load", strange)


def test_an_image_that_is_another_than_its_teacher_saw_is_named(
    train: Callable[[int], object], tmp_path: Path
) -> None:
    for path in (tmp_path / "shapes").rglob("*.bmp"):
        ImageOps.mirror(Image.open(path)).save(path)
    message = r"\.bmp: expected the pixels that the teacher saw, but these look mirrored; put the image back"
    with pytest.raises(DatasetError, match=message):
        train(2)


def test_a_decoding_process_that_is_killed_is_one_line(
    train: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    befalls_a_decoder(lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)
    with pytest.raises(PipelineError, match=r"^a decoding process is lost \(DataLoader .*\); .* run again"):
        train(2)


def test_ctrl_c_while_the_decoding_processes_fork_interrupts(
    train: Callable[[int], object], capfd: pytest.CaptureFixture[str]
) -> None:
    """Python drops what is raised between a fork's two halves, and prints a traceback."""
    presses = [signal.SIGINT]
    os.register_at_fork(after_in_parent=lambda: presses and signal.raise_signal(presses.pop()))
    with pytest.raises(KeyboardInterrupt):
        train(2)
    assert not presses
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_decoding_process_that_stops_is_noticed(
    train: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "DELIVERY_SECONDS", 2.0)
    befalls_a_decoder(lambda: os.kill(os.getpid(), signal.SIGSTOP), monkeypatch)
    with pytest.raises(PipelineError, match=r"^a decoding process is lost \(DataLoader timed out"):
        train(2)
    states = [Path(f"/proc/{process.pid}/stat").read_text().split()[2] for process in active_children()]
    assert "T" not in states, "one that stays stopped would be waited for when this process ends"


@pytest.mark.slow
def test_too_little_shared_memory_is_refused_before_the_first_step(
    train: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight images of 64 x 64 bytes in three colors, and a fifth more: 0.12 MB."""
    free = MB
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, free))
    train(2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "9")  # as many processes of this machine read ahead
    with pytest.raises(PipelineError, match="/dev/shm: "):
        train(2)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    free = MB // 10
    train(0)
    with pytest.raises(PipelineError, match=r"/dev/shm: .* but 100 KB are free; .*--shm-size"):
        train(2)
