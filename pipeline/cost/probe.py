"""A short measurement of this machine: a recipe's detectors with random weights, at the recipe's size.

One probe for the cost card (``ldp plan``) and for the benchmark (``ldp bench``). It needs no dataset: images
and boxes are drawn. Which values weights and pixels have changes no time.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, count, islice
from math import ceil, inf
from pathlib import Path
from typing import Final

import torch
from msgspec import structs
from torch import Tensor

from pipeline.core.orphans import keep_freed_memory
from pipeline.core.timing import timed_call
from pipeline.cost.peer import peer_step
from pipeline.cost.synthetic_coco import LONG_EDGE_PX, draw_dataset
from pipeline.cost.timer import Repeats, Work, peak_bytes, seconds_of, take_turns
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import random_teacher
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel
from pipeline.evaluation.detect import detect
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.source import StoreSource
from pipeline.student.teacher_batch import CodedTeacherBatch
from pipeline.student.train import student_losses
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts, read_batch
from pipeline.teacher.run import StoreLayout, layout_store, write_store
from pipeline.teacher.times import StoreTimes
from pipeline.training.batches import Batch, DenseTeacher, TargetSource
from pipeline.training.dataset import Loader, StepBatches
from pipeline.training.loop import build_for_training
from pipeline.training.processes import Placement
from pipeline.training.step import TrainStep
from pipeline.views.box_ops import expected_distances
from pipeline.views.conventions import GFL_CONVENTIONS

PLAIN, ONLINE, STORED, PEER = "plain", "LD, teacher in the loop", "LD, from the store", "peer"
PARTITIONS, MIN_PARTITION = 4, 8
"""A store's, and views of one, at least: writing a partition overlaps with the teacher's work on the next."""
PREFETCHED = 2
"""Steps that each process of a data loader reads ahead (torch's default)."""
NO_RATE = 0.0
"""The same step is taken again and again; random weights should not run away."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """How much is measured."""

    views: int
    """Views that are cached, at least."""
    rounds: int
    """How often each candidate is measured."""
    budget: float = inf
    """Seconds: a round before the first that takes longer is the only one, and counts."""
    modes: tuple[str, ...] = (PLAIN, ONLINE, STORED, PEER)
    """Steps to take of each student."""
    loaded_steps: int = 0
    """Steps of a run with the data loader, of each mode; 0 leaves these out, and the peaks of memory."""
    batch_sizes: tuple[int, ...] = ()
    """To time the teacher's forward pass and an evaluation with; with none, the host's share neither."""


@dataclass(frozen=True, kw_only=True)
class CacheTimes:
    """Writing a small store; seconds of one view."""

    views: int
    batch_size: int
    points_per_view: float
    pixels_per_view: float
    """Padding included."""
    bare: Repeats
    """The teacher's forward pass alone: the limit that no cache can beat."""
    stage: Repeats
    """The whole stage, its table of views and finalising included."""
    assign: float
    """Finding a view's points from its boxes."""
    write: float
    """Quantizing, compressing and writing."""
    read: float
    """Time to read one view, as a student reads it."""
    busy: dict[str, float]
    """Shares of the stage's busy seconds, by step."""
    bottleneck: str
    host: float | None = None
    """CPU seconds of this process in the stage, with a teacher that takes no time; ``None`` as the next."""
    forward: dict[int, Repeats] = field(default_factory=dict)
    """The bare forward pass, by batch size."""
    evaluation: dict[int, Repeats] = field(default_factory=dict)
    """Decoding, forward pass and NMS of an image, by batch size."""


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """One mode's training step; seconds of a whole batch."""

    step: Repeats
    """On a batch that is on the device: forward, losses, backward, update, and the teacher in the loop."""
    loaded: float | None
    """In a run of steps that the data loader feeds."""
    peak_bytes: int | None
    """Peak of memory in a step, beyond what is held between steps."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured."""

    cache: CacheTimes
    steps: dict[str, dict[str, StepTimes]]
    """By student and mode."""
    batch_sizes: dict[str, int]
    """Images of a step, by student."""


def probe_machine(
    teacher: DetectorConfig,
    students: dict[str, StudentConfig],
    cache: CacheConfig,
    config: ProbeConfig,
    *,
    machine: Placement,
    folder: Path,
) -> Probe:
    """Draw images, write a small store of them again and again, and take the students' steps.

    ``folder`` is for images and stores, and must be empty.
    """
    keep_freed_memory()  # as every stage does
    batch_sizes = {name: student.train.batch_size for name, student in students.items()}
    # Half of two batches' images are landscapes, so that a batch of one orientation can be had.
    trained = [size if size == 1 else 2 * size for size in batch_sizes.values()]
    images = max(*trained, ceil(config.views / len(cache.views.numbers)))
    long_edge = min(LONG_EDGE_PX, max(long for long, _ in cache.views.scales))
    manifest = draw_dataset(folder / "drawn", images, teacher.num_classes, long_edge)
    extractor = LogitExtractor(random_teacher(teacher), manifest, cache, machine.device)
    view_set = ViewSet(manifest, teacher.strides, cache.views, cache.regions, GFL_CONVENTIONS)
    size = max(cache.views.scales)
    logger.info("measuring the cache stage: %s, %d views of up to %s", teacher.backbone, len(view_set), size)
    passes = CachePasses(view_set, extractor, folder)
    times, steps = passes.time(config), {}
    store = TargetStore.open(passes.store)
    for name, student in students.items():
        logger.info(
            "measuring a step of %s: %s, %d images", name, student.detector.backbone, batch_sizes[name]
        )
        steps[name] = StudentSteps(student, view_set, store, extractor, machine).time(config)
    return Probe(cache=times, steps=steps, batch_sizes=batch_sizes)


class CachePasses:
    """Writes the same small store again and again."""

    def __init__(self, view_set: ViewSet, teacher: LogitExtractor, folder: Path) -> None:
        self._view_set, self._teacher, self._folder = view_set, teacher, folder
        count = min(teacher.config.views_per_partition, max(MIN_PARTITION, ceil(len(view_set) / PARTITIONS)))
        self._config = structs.replace(teacher.config, views_per_partition=count)
        self._layout = partial(
            layout_store,
            config=self._config,
            spec=teacher.model.spec,
            fingerprint={"views": view_set.views.to_json()},
        )
        self._busy = StoreTimes()
        self.store: Final = folder / "targets.zarr"
        """What the last pass has written."""

    def time(self, config: ProbeConfig) -> CacheTimes:
        """Measure the stage and its limit, in turns."""
        layout, assign_seconds = timed_call(self._layout, self._view_set)
        device, views = self._teacher.device, layout.schema.views
        candidates: dict[str, Work] = {
            "stage": partial(self._write, self._teacher),
            "bare": self._bare_pass(layout, self._config.batch_size),
        }
        evaluate = partial(
            detect,
            self._teacher.model,
            self._view_set.manifest,
            max(self._config.views.scales),
            device=device,
            precision=self._config.forward_precision,
        )
        for size in config.batch_sizes:
            candidates[f"bare {size}"] = self._bare_pass(layout, size)
            candidates[f"evaluation {size}"] = partial(evaluate, batch_size=size)
        seconds = take_turns(candidates, config.rounds, device, config.budget)
        images = len(self._view_set.manifest.images)
        store = TargetStore.open(self.store)
        _, read_seconds = timed_call(lambda: [store.read(key) for key in store.keys])
        busy, total = self._busy.busy, sum(vars(self._busy.busy).values())
        return CacheTimes(
            views=views,
            batch_size=self._config.batch_size,
            points_per_view=float(layout.table.counts[:, 0].mean()),
            pixels_per_view=float(layout.table.geometry[:, 4:6].astype(float).prod(axis=1).mean()),
            bare=Repeats.from_rounds(seconds["bare"], views),
            stage=Repeats.from_rounds(seconds["stage"], views),
            assign=assign_seconds / views,
            write=(busy.quantize + busy.write) / self._busy.views,
            read=read_seconds / views,
            busy={name: value / total for name, value in vars(busy).items()},
            bottleneck=self._busy.bottleneck,
            host=self.host_seconds() / views if config.batch_sizes else None,
            forward={n: Repeats.from_rounds(seconds[f"bare {n}"], views) for n in config.batch_sizes},
            evaluation={
                n: Repeats.from_rounds(seconds[f"evaluation {n}"], images) for n in config.batch_sizes
            },
        )

    def host_seconds(self) -> float:
        """CPU seconds of the stage with a teacher that takes no time."""
        instant = replace(self._teacher, model=InstantModel(self._teacher.model))
        self._write(instant)  # computes the outputs of every size, once
        start = time.process_time()
        self._write(instant)
        return time.process_time() - start

    def _bare_pass(self, layout: StoreLayout, batch_size: int) -> Callable[[], None]:
        """All of the stage's views, decoded already, through the network, in as many threads."""
        config, parts = structs.replace(self._config, batch_size=batch_size), range(layout.schema.partitions)
        teacher = replace(self._teacher, config=config)
        views = [self._view_set.in_rows(layout.schema.partition_views(index)) for index in parts]
        batches = [batch for part in views for batch in teacher.batches(part)]
        decoded = [teacher.images(read_batch(batch, teacher.preprocessing), batch) for batch in batches]
        pixels = batch_size * self._view_set.views.largest_pixels
        threads = ThreadCounts.of(teacher.device, torch.get_num_threads(), pixels).forwards
        inside = 1 if teacher.device.type == "cpu" else torch.get_num_threads()

        def run() -> None:
            # As in the stage, a forward pass on the CPU keeps to one thread.
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(inside,)) as pool:
                for _ in pool.map(teacher.outputs, decoded):
                    pass

        return run

    def _write(self, teacher: LogitExtractor) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        view_set = self._view_set.remembering()
        times = write_store(
            self._layout(view_set),
            view_set,
            teacher,
            scratch_root=self._folder / "scratch",
            output=self.store,
        )
        if teacher is self._teacher:
            self._busy += times


class InstantModel:
    """Gives images of a size the outputs of the first ones that had it."""

    def __init__(self, model: BoxModel) -> None:
        self._model, self._outputs = model, dict[torch.Size, RawOutputs]()
        self.spec, self.device = model.spec, model.device

    def to_inference(self, device: torch.device) -> None:
        """It has moved."""

    def __call__(self, images: Tensor) -> RawOutputs:
        if images.shape not in self._outputs:
            self._outputs[images.shape] = self._model(images)
        return self._outputs[images.shape]


class StudentSteps:
    """A student with random weights, and one batch of its images, taken in several modes."""

    def __init__(
        self,
        config: StudentConfig,
        view_set: ViewSet,
        store: TargetStore,
        teacher: LogitExtractor,
        machine: Placement,
    ) -> None:
        """Build the student; ``config`` gives the batch size and does not start from pretrained weights."""
        model = build_for_training(config.detector, view_set.conventions, config.train, machine.device)
        model.train()
        self._step = TrainStep(model, student_losses(config), config.train, machine)
        self._config, self._machine, self._teacher = config, machine, teacher
        self._sources: dict[str, TargetSource] = {
            PLAIN: StoreSource(views=store, read_logits=False),
            ONLINE: TargetSource(views=view_set),
            STORED: StoreSource(views=store, read_logits=True, read_dense=config.loss.reads_dense),
        }
        self._view_set, self._store = view_set, store

    def time(self, config: ProbeConfig) -> dict[str, StepTimes]:
        """Measure the steps of all modes in turns, then each with its data loader."""
        device = self._machine.device
        candidates = {mode: self._candidate(mode) for mode in config.modes}
        seconds = take_turns(candidates, config.rounds, device, config.budget)
        return {
            mode: StepTimes(
                step=Repeats.from_rounds(seconds[mode]),
                loaded=self._time_loaded(mode, config.loaded_steps),
                peak_bytes=peak_bytes(candidates[mode], device) if config.loaded_steps else None,
            )
            for mode in config.modes
        }

    def _candidate(self, mode: str) -> Callable[[], None]:
        kind = STORED if mode == PEER else mode
        batches = next(self.batches(kind, replace(self._machine, workers=0)))
        if mode == PEER:
            return self._peer(torch.cat([batch.pixels for batch in batches]).shape)
        moved = tuple(batch.to(self._machine.device) for batch in batches)
        return lambda: self._take(mode, moved)

    def _take(self, mode: str, batches: Sequence[Batch]) -> None:
        asked = (replace(b, teacher=ask(self._teacher, b)) for b in batches) if mode == ONLINE else batches
        self._step.step(tuple(asked), NO_RATE)

    def _peer(self, shape: torch.Size) -> Callable[[], None]:
        """On images of the same padded size, with as many boxes; ``shape`` is ``(B, H, W, 3)``."""
        images = torch.rand(shape).permute(0, 3, 1, 2).to(self._machine.device)
        views = [self._store.view(key) for key in self._store.keys[: len(images)]]
        boxes = [(torch.from_numpy(view.boxes_xyxy), torch.from_numpy(view.labels)) for view in views]
        config = self._config
        return peer_step(images, boxes, config.detector.num_classes, config.train, self._machine.device)

    def _time_loaded(self, mode: str, steps: int) -> float | None:
        """Seconds of a step, once what the loader's processes had read before is used up."""
        if mode == PEER or not steps:
            return None
        device, batches = self._machine.device, self.batches(mode)
        for _ in islice(batches, 1 + PREFETCHED * self._machine.workers):
            pass

        def run() -> None:
            for parts in islice(batches, steps):
                self._take(mode, tuple(batch.to(device) for batch in parts))

        return seconds_of(run, device) / steps

    def batches(self, mode: str, machine: Placement | None = None) -> Iterator[StepBatches]:
        """Steps of the same epoch, again and again."""
        loader = Loader(
            manifest=self._view_set.manifest,
            source=self._sources[mode],
            pyramid=self._view_set.conventions.pyramid(self._config.detector.strides),
            config=self._config.train,
            machine=machine or self._machine,
        )
        return chain.from_iterable(loader.epoch(0) for _ in count())


@torch.no_grad()
def ask(teacher: LogitExtractor, batch: Batch) -> CodedTeacherBatch:
    """Run a teacher on a batch as it is padded, and select its points."""
    preprocessing = teacher.model.spec.conventions.preprocessing
    raw, targets = teacher.outputs(batch.images(preprocessing)), batch.targets
    rows = slice(None) if teacher.config.valuable_classes else targets.main
    return CodedTeacherBatch(
        edges=raw.edge_logits[targets.image, targets.index].float(),
        classes=raw.cls_logits[targets.image[rows], targets.index[rows]].float(),
        dense=DenseTeacher(
            classes=raw.cls_logits,
            scores=None,
            distances=expected_distances(raw.edge_logits.float()),
            unit=1.0,
        )
        if teacher.config.dense
        else None,
    )
