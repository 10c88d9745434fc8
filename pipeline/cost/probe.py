"""What is timed on this machine: the cache stage and students' steps, at a recipe's size.

One probe for ``ldp plan`` and ``ldp bench``. It needs no dataset: images and boxes are drawn, and weights are
random, which changes no time.
"""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain, count, islice
from math import ceil, inf
from pathlib import Path

import torch
from msgspec import structs
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pipeline.cost.synthetic_coco import LONG_EDGE_PX, draw_dataset
from pipeline.detector.config import DetectorConfig
from pipeline.detector.device import autocast
from pipeline.detector.gfl import random_teacher
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.targets import DenseTeacher, StoreSource, TeacherBatch
from pipeline.student.train import student_losses
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts, read_batch
from pipeline.teacher.layout import layout_store
from pipeline.teacher.run import write_store
from pipeline.teacher.times import StoreTimes
from pipeline.training.batches import Batch, TargetSource
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import Loader, StepBatches
from pipeline.training.loop import build_for_training
from pipeline.training.processes import Placement
from pipeline.training.step import TrainStep, build_optimizer
from pipeline.views.box_ops import expected_distances
from pipeline.views.conventions import GFL_CONVENTIONS

Work = Callable[[], object]

PLAIN, ONLINE, STORED = "plain", "LD, teacher in the loop", "LD, from the store"
PEER = "torchvision fcos_resnet50_fpn"
MODES = (PLAIN, ONLINE, STORED, PEER)
PEER_STAGES = 5
"""Of the peer's backbone, the stem included."""
PARTITIONS, MIN_PARTITION = 4, 8
"""A store's, and views of one, at least: writing a partition overlaps with the teacher's work on the next."""
PREFETCHED = 2
"""Steps that each process of a data loader reads ahead (torch's default)."""
NO_RATE = 0.0
"""The same step is taken again and again; random weights should not run away."""


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds until a device has done what ``work`` gave it."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def take_turns(
    candidates: Mapping[str, Work], pieces: int, rounds: int, device: torch.device, budget: float = inf
) -> dict[str, list[float]]:
    """Seconds of one of each candidate's equal ``pieces``, by name and round: a busy machine is so for all.

    One more round goes before, which does not count, unless it takes longer than ``budget`` seconds: then it
    is the only one.
    """
    rng = random.Random(0)
    first = {name: [seconds_of(work, device) / pieces] for name, work in candidates.items()}
    if pieces * sum(seconds for (seconds,) in first.values()) > budget:
        return first
    later: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in rng.sample(list(candidates), len(candidates)):
            later[name].append(seconds_of(candidates[name], device) / pieces)
    return later


class Probe:
    """A recipe's teacher, views of drawn images, and the small store of them that is written and read."""

    def __init__(
        self,
        teacher: DetectorConfig,
        cache: CacheConfig,
        *,
        views: int,
        batch_size: int,
        machine: Placement,
        folder: Path,
    ) -> None:
        """Draw images for ``views``, at least, and for students' steps of ``batch_size`` images.

        ``folder`` is for images and stores, and must be empty.
        """
        # Half of two batches' images are landscapes, so that a batch of one orientation can be had.
        images = max(min(batch_size, 2) * batch_size, ceil(views / len(cache.views.numbers)))
        long_edge = min(LONG_EDGE_PX, max(long for long, _ in cache.views.scales))
        manifest = draw_dataset(folder / "drawn", images, teacher.num_classes, long_edge)
        self.view_set = ViewSet(manifest, teacher.strides, cache.views, cache.regions, GFL_CONVENTIONS)
        partition = max(MIN_PARTITION, ceil(len(self.view_set) / PARTITIONS))
        cache = structs.replace(cache, views_per_partition=min(cache.views_per_partition, partition))
        self.teacher = LogitExtractor(random_teacher(teacher), manifest, cache, machine.device)
        self.machine, self._batch_size, self._store = machine, batch_size, folder / "targets.zarr"
        self._lay_out = partial(
            layout_store,
            config=cache,
            spec=self.teacher.model.spec,
            fingerprint={"views": cache.views.to_json()},
            workers=torch.get_num_threads(),
        )
        self.layout = self._lay_out(self.view_set)
        self.times = StoreTimes()
        """Of all stores written."""

    def write_store(self) -> None:
        """The whole stage, its table of views and finalising included."""
        scratch, view_set = self._store.with_name("scratch"), self.view_set.remembering()
        shutil.rmtree(self._store, ignore_errors=True)
        layout = self._lay_out(view_set)
        self.times += write_store(layout, view_set, self.teacher, scratch_root=scratch, output=self._store)

    def open_store(self) -> TargetStore:
        """What was written last."""
        return TargetStore.open(self._store)

    def bare_pass(self, batch_size: int | None = None) -> Work:
        """All of the stage's views, decoded already, through the network: the limit that no cache can beat.

        In batches of the recipe's size, or of ``batch_size``, and in as many threads as the stage has.
        """
        schema, config = self.layout.schema, self.teacher.config
        config = structs.replace(config, batch_size=batch_size or config.batch_size)
        teacher = replace(self.teacher, config=config)
        parts = (self.view_set.in_rows(schema.partition_views(index)) for index in range(schema.partitions))
        batches = [batch for part in parts for batch in teacher.batches(part)]
        decoded = [teacher.images(read_batch(batch, teacher.preprocessing), batch) for batch in batches]
        pixels = config.batch_size * config.views.largest_pixels
        threads = ThreadCounts.of(teacher.device, torch.get_num_threads(), pixels).forwards
        inside = 1 if teacher.device.type == "cpu" else torch.get_num_threads()

        def run() -> None:
            # As in the stage, a forward pass on the CPU keeps to one thread.
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(inside,)) as pool:
                for _ in pool.map(teacher.outputs, decoded):
                    pass

        return run

    def steps(self, student: StudentConfig, modes: Sequence[str]) -> dict[str, Work]:
        """A step by mode, on a batch that is on the device: forward, losses, backward, update.

        The peer's images are padded as the student's are, with as many boxes.
        """
        device, take = self.machine.device, self._step_of(student)

        def work(mode: str) -> Work:
            parts = next(self.batches(student, mode, replace(self.machine, workers=0)))
            if mode == PEER:
                images = torch.rand(torch.cat([part.pixels for part in parts]).shape).permute(0, 3, 1, 2)
                store = self.open_store()
                views = [store.view(key) for key in store.keys[: len(images)]]
                boxes = [(torch.from_numpy(v.boxes_xyxy), torch.from_numpy(v.labels)) for v in views]
                return peer_step(images.to(device), boxes, student.detector.num_classes, student.train)
            moved = [part.to(device) for part in parts]
            if mode == ONLINE:
                return lambda: take([replace(part, teacher=ask(self.teacher, part)) for part in moved])
            return lambda: take(moved)

        return {mode: work(mode) for mode in modes}

    def loaded_step(self, student: StudentConfig, steps: int) -> float:
        """Seconds of a step from the store that the data loader feeds, beyond what it had read ahead."""
        take, batches = self._step_of(student), self.batches(student, STORED, self.machine)

        def run(steps: int) -> None:
            for parts in islice(batches, steps):
                take([part.to(self.machine.device) for part in parts])

        run(1 + PREFETCHED * self.machine.workers)
        return seconds_of(lambda: run(steps), self.machine.device) / steps

    def batches(self, student: StudentConfig, mode: str, machine: Placement) -> Iterator[StepBatches]:
        """Steps of the same epoch, again and again."""
        source: TargetSource
        if mode == ONLINE:
            source = TargetSource(views=self.view_set)
        else:
            logits = mode != PLAIN
            dense = logits and student.loss.reads_dense
            source = StoreSource(views=self.open_store(), read_logits=logits, read_dense=dense)
        loader = Loader(
            manifest=self.view_set.manifest,
            source=source,
            pyramid=self.view_set.conventions.pyramid(student.detector.strides),
            config=self._training(student),
            machine=machine,
        )
        return chain.from_iterable(loader.epoch(0) for _ in count())

    def _training(self, student: StudentConfig) -> TrainConfig:
        """From random weights."""
        return structs.replace(student.train, pretrained=False, batch_size=self._batch_size)

    def _step_of(self, student: StudentConfig) -> Callable[[Sequence[Batch]], object]:
        config = self._training(student)
        model = build_for_training(student.detector, self.view_set.conventions, config, self.machine.device)
        model.train()
        step = TrainStep(model, student_losses(student), config, self.machine)
        return lambda batches: step.step(tuple(batches), NO_RATE)


@torch.no_grad()
def ask(teacher: LogitExtractor, batch: Batch) -> TeacherBatch:
    """Run a teacher on a batch as it is padded, and select its points."""
    preprocessing = teacher.model.spec.conventions.preprocessing
    raw, targets = teacher.outputs(batch.images(preprocessing)), batch.targets
    rows = slice(None) if teacher.config.valuable_classes else targets.main
    return TeacherBatch(
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


def peer_step(
    images: Tensor, boxes: list[tuple[Tensor, Tensor]], num_classes: int, config: TrainConfig
) -> Work:
    """A step of torchvision's FCOS: forward, its own matching and losses, backward, update.

    Weights are random; frozen stages, BatchNorm, optimizer and precision are a student's ``config``'s.
    ``images`` are ``Tensor[B, 3, H, W]``, padded, and neither resized nor padded again; ``boxes`` are
    ``Tensor[N, 4]`` xyxy px and ``LongTensor[N]`` labels of each.
    """
    device = images.device
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if config.norm_eval else torch.nn.BatchNorm2d,
        trainable_layers=PEER_STAGES - max(0, config.frozen_stages + 1),
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(backbone, num_classes + 1, _skip_resize=True)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = build_optimizer(model, config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    for group in optimizer.param_groups:
        group["lr"] = NO_RATE
    targets = [{"boxes": xyxy.to(device), "labels": labels.to(device)} for xyxy, labels in boxes]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.precision, device):
            losses: dict[str, Tensor] = model(list(images), targets)
        scaler.scale(torch.stack([*losses.values()]).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()

    return step
