"""What ``ldp plan`` and ``ldp bench`` time at a recipe's size, on drawn images and with random weights."""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, count, islice
from math import ceil, inf
from pathlib import Path

import numpy as np
import torch
from msgspec import structs
from PIL import Image
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pipeline.core.progress import timed_call
from pipeline.detector.config import DetectorConfig
from pipeline.detector.device import autocast, device
from pipeline.detector.gfl import random_teacher
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.student.targets import DenseTeacher, StoreSource, TeacherBatch
from pipeline.student.train import student_losses
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts, read_batch
from pipeline.teacher.layout import StoreLayout, layout_store
from pipeline.teacher.run import StoreTimes, write_store
from pipeline.training.batches import Batch
from pipeline.training.config import TrainConfig
from pipeline.training.dataset import PREFETCH, Loader, StepBatches
from pipeline.training.launch import machine
from pipeline.training.loop import build_for_training
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.training.step import TrainStep, build_optimizer
from pipeline.views.box_ops import expected_distances
from pipeline.views.classes import Category
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest

Work = Callable[[], object]

PLAIN, ONLINE, STORED = "plain", "LD, teacher in the loop", "LD, from the store"
PEER = "torchvision fcos_resnet50_fpn"
MODES = (PLAIN, ONLINE, STORED, PEER)
LONG_EDGE_PX = 640
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427))
"""``(height, width)`` px: the most frequent ones of COCO's train2017, in turn."""


def seconds_of(work: Work) -> float:
    """Seconds until the device has done what ``work`` gave it."""
    synchronize: Work = torch.cuda.synchronize if device().type == "cuda" else lambda: None
    synchronize()
    return timed_call(lambda: (work(), synchronize()))[1]


def take_turns(
    candidates: Mapping[str, Work], pieces: int, rounds: int, budget: float = inf
) -> dict[str, list[float]]:
    """Seconds of one of each candidate's equal ``pieces``, by name and round: a busy machine is so for all.

    A round before does not count; if it takes longer than ``budget`` seconds it is the only one.
    """
    rng = random.Random(0)
    seconds = {name: [seconds_of(work) / pieces] for name, work in candidates.items()}
    if pieces * sum(first for (first,) in seconds.values()) > budget:
        return seconds
    for _ in range(rounds):
        for name in rng.sample(list(candidates), len(candidates)):
            seconds[name].append(seconds_of(candidates[name]) / pieces)
    return {name: later for name, (_, *later) in seconds.items()}


class Probe:
    """A recipe's teacher, views of drawn images, and the small store of them that is written and read."""

    def __init__(
        self, teacher: DetectorConfig, cache: CacheConfig, *, views: int, batch_size: int, folder: Path
    ) -> None:
        """Draw images into an empty folder: for ``views``, at least, and steps of ``batch_size`` images."""
        # Half of two batches' images are landscapes, so that a batch of one orientation can be had.
        images = max(min(batch_size, 2) * batch_size, ceil(views / len(cache.views.numbers)))
        long_edge = min(LONG_EDGE_PX, max(long for long, _ in cache.views.scales))
        manifest = draw_dataset(folder / "drawn", images, teacher.num_classes, long_edge)
        self.view_set = ViewSet(manifest, teacher.strides, cache.views, cache.regions, GFL_CONVENTIONS)
        # Four partitions or so: writing one overlaps with the teacher's work on the next.
        partition = max(8, ceil(len(self.view_set) / 4))
        cache = structs.replace(cache, views_per_partition=min(cache.views_per_partition, partition))
        self.machine = machine(SINGLE_PROCESS)
        self.teacher = LogitExtractor(random_teacher(teacher), manifest, cache, self.machine.device)
        self.output, self.times = folder / "targets.zarr", StoreTimes()
        """The store that was written last, and the times of all; below, its layout."""
        self.layout: StoreLayout

    def write_store(self) -> None:
        """The whole stage, its table of views and finalising included."""
        view_set, config = self.view_set.remembering(), self.teacher.config
        shutil.rmtree(self.output, ignore_errors=True)
        fingerprint, threads = {"views": config.views.to_json()}, torch.get_num_threads()
        self.layout = layout = layout_store(view_set, config, self.teacher.model.spec, fingerprint, threads)
        scratch = self.output.with_name("scratch")
        self.times += write_store(layout, view_set, self.teacher, scratch_root=scratch, output=self.output)

    def bare_pass(self, batch_size: int) -> Work:
        """All views, decoded already, through the network in the stage's threads: what no cache can beat."""
        config = structs.replace(self.teacher.config, batch_size=batch_size)
        teacher = replace(self.teacher, config=config)
        batches = teacher.batches(list(self.view_set))
        decoded = [teacher.images(read_batch(batch, teacher.preprocessing), batch) for batch in batches]
        pixels = config.batch_size * config.views.largest_pixels
        threads = ThreadCounts.of(teacher.device, torch.get_num_threads(), pixels).forwards

        def run() -> None:
            # As in the stage, a forward pass keeps to one thread.
            with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                for _ in pool.map(teacher.outputs, decoded):
                    pass

        return run

    def steps(self, student: StudentConfig, modes: Sequence[str]) -> dict[str, Work]:
        """A step by mode, on a batch that is on the device: forward, losses, backward, update."""
        take = self._step_of(student)

        def work(mode: str) -> Work:
            batches = self.batches(student, workers=0, logits=mode == STORED)
            parts = [part.to(self.machine.device) for part in next(batches)]
            if mode == PEER:
                # Padded as the student's are, with as many boxes.
                images = torch.cat([part.images(self.teacher.preprocessing) for part in parts])
                views = self.view_set.in_rows(slice(len(images)))
                boxes = [(torch.from_numpy(v.boxes_xyxy), torch.from_numpy(v.labels)) for v in views]
                return peer_step(images, boxes, student.detector.num_classes, student.train)
            if mode == ONLINE:
                return lambda: take([replace(part, teacher=ask(self.teacher, part)) for part in parts])
            return lambda: take(parts)

        return {mode: work(mode) for mode in modes}

    def loaded_step(self, student: StudentConfig, steps: int) -> float:
        """Seconds of a step from the store that the data loader feeds, beyond what it had read ahead."""
        workers = self.machine.workers
        take, batches = self._step_of(student), self.batches(student, workers=workers, logits=True)

        def run(steps: int) -> None:
            for parts in islice(batches, steps):
                take([part.to(self.machine.device) for part in parts])

        run(1 + PREFETCH * workers)
        return seconds_of(lambda: run(steps)) / steps

    def batches(self, student: StudentConfig, *, workers: int, logits: bool) -> Iterator[StepBatches]:
        """Steps of the store's first epoch, again and again; with the teacher's ``logits``, or without."""
        dense = logits and student.loss.reads_dense
        source = StoreSource(views=TargetStore.open(self.output), read_logits=logits, read_dense=dense)
        views, here = self.view_set, replace(self.machine, workers=workers)
        loader = Loader(source, views.manifest, views.pyramid, student.train, here)
        return chain.from_iterable(loader.epoch(0) for _ in count())

    def _step_of(self, student: StudentConfig) -> Callable[[Sequence[Batch]], object]:
        config = structs.replace(student.train, pretrained=False)
        model = build_for_training(student.detector, self.view_set.conventions, config, self.machine.device)
        model.train()
        step = TrainStep(model, student_losses(student), config, self.machine)
        # The same step is taken again and again: at any rate random weights would run away.
        return lambda batches: step.step(tuple(batches), rate=0.0)


@torch.no_grad()
def ask(teacher: LogitExtractor, batch: Batch) -> TeacherBatch:
    """Run a teacher on a batch as it is padded, and select its points."""
    raw, targets = teacher.outputs(batch.images(teacher.preprocessing)), batch.targets
    rows = slice(None) if teacher.config.valuable_classes else targets.main
    edges = raw.edge_logits[targets.image, targets.index].float()
    classes = raw.cls_logits[targets.image[rows], targets.index[rows]].float()
    dense = None
    if teacher.config.dense:
        distances = expected_distances(raw.edge_logits.float())
        dense = DenseTeacher(classes=raw.cls_logits, scores=None, distances=distances, unit=1.0)
    return TeacherBatch(edges=edges, classes=classes, dense=dense)


def peer_step(
    images: Tensor, boxes: list[tuple[Tensor, Tensor]], num_classes: int, config: TrainConfig
) -> Work:
    """A step of torchvision's FCOS of random weights: forward, its own matching and losses, backward, update.

    Frozen stages, BatchNorm, optimizer and precision are ``config``'s. ``images`` are ``Tensor[B, 3, H, W]``,
    padded, and not resized; ``boxes`` are ``Tensor[N, 4]`` xyxy px and ``LongTensor[N]`` labels of each.
    """
    here = images.device
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if config.norm_eval else torch.nn.BatchNorm2d,
        trainable_layers=5 - max(0, config.frozen_stages + 1),  # the stem included
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(backbone, num_classes + 1, _skip_resize=True)
    model.to(here, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = build_optimizer(model, structs.replace(config, learning_rate=0.0), here)
    scaler = torch.amp.GradScaler(here.type, enabled=config.precision == "float16")
    targets = [{"boxes": xyxy.to(here), "labels": labels.to(here)} for xyxy, labels in boxes]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.precision, here):
            losses: dict[str, Tensor] = model(list(images), targets)
        scaler.scale(torch.stack([*losses.values()]).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()

    return step


def draw_dataset(folder: Path, images: int, categories: int, long_edge: int = LONG_EDGE_PX) -> Manifest:
    """Draw JPEG files of train2017's sizes and boxes, always the same, or smaller ones, into a folder."""
    (folder / "images").mkdir(parents=True)
    scale = long_edge / LONG_EDGE_PX
    records = [_draw_image(folder / "images", number, categories, scale) for number in range(images)]
    return Manifest(
        root=str(folder),
        folder="images",
        categories=tuple(Category(category_id=i + 1, name=f"category {i + 1}") for i in range(categories)),
        images=ImageTable.of(records),
    )


def _draw_image(folder: Path, number: int, categories: int, scale: float) -> ImageRecord:
    rng = np.random.default_rng([0, number])
    height, width = (round(side * scale) for side in SIZES[number % len(SIZES)])
    name = f"{number:012}.jpg"
    # So much grain and quality make a file of about 150 KB, as COCO's are.
    pixels = rng.normal(128, 12, (height, width, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name, quality=90)
    # One and more, 7.27 in the mean; the root of the area is below 32 px for 41 %, and below 96 for 76 %.
    count = 1 + int(rng.exponential(7.27 - 0.5))
    side, aspect = scale * rng.lognormal(3.73, 1.18, count), rng.lognormal(0, 0.5, count)
    w, h = np.clip(side * aspect, 2, width), np.clip(side / aspect, 2, height)
    boxes = np.stack([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h], axis=1).tolist()
    classes = rng.integers(1, categories + 1, count).tolist()
    annotations = tuple(
        Annotation(0, category, x, y, w, h, area=w * h, iscrowd=False)
        for category, (x, y, w, h) in zip(classes, boxes, strict=True)
    )
    return ImageRecord(image_id=number, file_name=name, height=height, width=width, annotations=annotations)
