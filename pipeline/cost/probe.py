"""A short measurement of the user's own machine: the recipe's detectors at the recipe's size.

Weights and pixels are random, which changes no time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from msgspec import structs
from torch import Tensor

from pipeline.core.timing import timed_call
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.store.format.table import ViewIndex, plan_schema
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.store.writer import writer
from pipeline.student.config import StudentConfig
from pipeline.student.teacher_batch import quantized_teacher_batch
from pipeline.student.train import student_losses
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.batches import Example, collate
from pipeline.training.loop import build_for_training
from pipeline.training.processes import Placement, World
from pipeline.training.step import TrainStep
from pipeline.views.conventions import GFL_CONVENTIONS, GFL_PREPROCESSING
from pipeline.views.images import batch_images
from pipeline.views.manifest import Manifest
from pipeline.views.types import LabeledView, SoftTargets, ViewKey

WRITTEN_VIEWS = 16
"""One partition; its views are the typical one again and again, with other noise."""
NOISE_LOGITS = 1.0
"""Added to what random weights say, which is nearly nothing and would compress to nothing."""
BUDGET_SECONDS = 10.0
"""Work that takes longer is timed once; shorter work is repeated for about so long, after a warm-up."""
MOST_REPEATS = 10
NO_RATE = 0.0
"""Learning rate of a probed step, so that random weights do not run away."""
GPU_STUDENT_IMAGES = 2
"""Images of a probed step on a GPU (the published runs' number per GPU); on the CPU it is one."""

T = TypeVar("T")

Announce = Callable[[str], None]
"""Is told what is measured next."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Seconds of one view or image of the probed size."""

    device: str
    threads: int
    probed_hw: tuple[int, int]
    """Padded ``(height, width)``, px."""
    teacher_batch: int
    student_batch: int
    teacher_seconds: float
    """Forward pass and selection of the kept points."""
    write_seconds: float
    """Quantizing, compressing, writing and finalising."""
    read_seconds: float
    student_seconds: dict[str, float]
    """Forward, losses, backward and optimizer step of each student, without decoding."""

    @property
    def pixels(self) -> int:
        """Of the probed view."""
        return self.probed_hw[0] * self.probed_hw[1]


def probe_machine(
    teacher: DetectorConfig,
    students: dict[str, StudentConfig],
    config: CacheConfig,
    manifest: Manifest,
    view: LabeledView,
    *,
    device: torch.device,
    folder: Path,
    announce: Announce,
) -> Probe:
    """Run the teacher, write and read a small store, and train each kind of student for a few steps.

    Args:
        teacher: Its architecture.
        students: Those that differ in their losses alone are timed once, with all losses they have.
        config: Of the store.
        manifest: Of the dataset.
        view: A typical one, with its points.
        device: To compute on.
        folder: For the small store; must be empty.
        announce: Is told what is measured next.
    """
    on_gpu = device.type != "cpu"
    teacher_batch, student_batch = (config.batch_size, GPU_STUDENT_IMAGES) if on_gpu else (1, 1)
    announce(f"the teacher: {teacher.backbone}, {teacher_batch} views of {view.geometry.padded_hw}")
    soft, teacher_seconds = _run_teacher(
        LogitExtractor(
            model=GFL(teacher),
            manifest=manifest,
            batch_size=teacher_batch,
            device=device,
            precision=config.forward_precision,
        ),
        view,
    )
    announce(f"the store: {WRITTEN_VIEWS} views")
    stored, write_seconds, read_seconds = _write_and_read(teacher, config, view, soft, folder)
    student_seconds: dict[str, float] = {}
    for names, student in _kinds(students):
        announce(f"a step of {', '.join(names)}: {student.detector.backbone}, {student_batch} images")
        seconds = _train_student(student, stored, student_batch, device)
        student_seconds |= dict.fromkeys(names, seconds)
    return Probe(
        device=device_name(device),
        threads=torch.get_num_threads(),
        probed_hw=view.geometry.padded_hw,
        teacher_batch=teacher_batch,
        student_batch=student_batch,
        teacher_seconds=teacher_seconds,
        write_seconds=write_seconds,
        read_seconds=read_seconds,
        student_seconds=student_seconds,
    )


def device_name(device: torch.device) -> str:
    """As people call it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _run_teacher(teacher: LogitExtractor, view: LabeledView) -> tuple[SoftTargets, float]:
    """What random weights say of a view, and seconds for each view of a batch."""
    batch = teacher.batch_size
    images = batch_images([_pixels(view)] * batch, [view.geometry.padded_hw] * batch, GFL_PREPROCESSING)
    (soft, *_), seconds = _seconds_of(lambda: teacher.forward(images, [view] * batch), teacher.device)
    return soft, seconds / batch


def _write_and_read(
    detector: DetectorConfig, config: CacheConfig, view: LabeledView, soft: SoftTargets, folder: Path
) -> tuple[StoredView, float, float]:
    """A view as a student reads it, and seconds a view to write a store and to read one."""
    views = [replace(view, key=ViewKey(number, 0)) for number in range(WRITTEN_VIEWS)]
    schema = plan_schema(
        table := ViewIndex.from_views(views),
        bins=detector.bins,
        num_classes=detector.num_classes,
        strides=detector.strides,
        precision=config.precision,
        views_per_partition=WRITTEN_VIEWS,
        fingerprint={},
        provenance={},
    )
    targets = [_with_noise(soft, number) for number in range(WRITTEN_VIEWS)]
    writer.init(folder / "scratch", schema, table)
    _, write_seconds = timed_call(writer.write_partition, folder / "scratch", 0, views, targets)
    _, finalise_seconds = timed_call(writer.finalise, folder / "scratch", folder / "targets.zarr")
    store = TargetStore.open(folder / "targets.zarr")
    stored, read_seconds = timed_call(lambda: [store.read(planned.key) for planned in views])
    return stored[0], (write_seconds + finalise_seconds) / WRITTEN_VIEWS, read_seconds / WRITTEN_VIEWS


def _with_noise(soft: SoftTargets, seed: int) -> SoftTargets:
    rng = np.random.default_rng(seed)
    edges, classes = (
        (logits + rng.normal(0, NOISE_LOGITS, logits.shape)).astype(np.float32)
        for logits in (soft.edge_logits, soft.cls_logits)
    )
    return SoftTargets(edge_logits=edges, cls_logits=classes)


def _kinds(students: dict[str, StudentConfig]) -> Iterator[tuple[list[str], StudentConfig]]:
    """Students of one architecture, and of them the one that has most losses to compute."""
    for detector in dict.fromkeys(student.detector for student in students.values()):
        same = {name: student for name, student in students.items() if student.detector == detector}
        yield list(same), max(same.values(), key=lambda student: student.loss.terms)


def _train_student(student: StudentConfig, stored: StoredView, batch: int, device: torch.device) -> float:
    """Seconds an image of a training step."""
    train = structs.replace(student.train, pretrained=False)
    machine = Placement(device=device, workers=0, processes=World(rank=0, count=1), micro_batch=None)
    model = build_for_training(student.detector, GFL_CONVENTIONS, train, device)
    stepper = TrainStep(model, student_losses(student, GFL_CONVENTIONS), train, machine)
    example = Example(pixels=_pixels(stored.view), view=stored.view, teacher=stored)
    padded_hw = stored.view.geometry.padded_hw
    pyramid = GFL_CONVENTIONS.pyramid(student.detector.strides)
    examples = collate([example] * batch, pyramid, padded_hw, GFL_PREPROCESSING, quantized_teacher_batch)
    return _seconds_of(lambda: stepper.step((examples.to(device),), NO_RATE), device)[1] / batch


def _pixels(view: LabeledView) -> Tensor:
    height, width = view.geometry.resized_hw
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def _seconds_of(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What some work returns, and the median of its seconds; long work is timed once, without warm-up."""

    def run() -> T:
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    result, first = timed_call(run)
    repeats = min(MOST_REPEATS, int(BUDGET_SECONDS / first))
    return result, median(timed_call(run)[1] for _ in range(repeats)) if repeats else first
