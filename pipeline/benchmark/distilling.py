"""``ldp bench``: what a recipe's distillation costs beside plain training, measured in one process."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace

from pipeline.benchmark.caching import CachePasses, CacheTimes
from pipeline.benchmark.rounds import ShowRounds
from pipeline.benchmark.stepping import StepTimes, StudentSteps
from pipeline.benchmark.versions import versions
from pipeline.benchmark.ways import ONLINE, PLAIN, STORED, ways
from pipeline.cost.card import StudentCost, break_even
from pipeline.cost.probe import device_name
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.processes import Placement
from pipeline.views.geometry import PerEpochViewsConfig, Views

PARTITIONS = 4
"""Of the store that is written: the writing of one overlaps with the teacher's work on the next."""
PACKAGES = ("torch", "torchvision", "zarr")
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class DistillingConfig:
    """What is measured."""

    rounds: int
    """How often each candidate is measured."""
    steps: int
    """Of a run with the data loader."""


@dataclass(frozen=True, kw_only=True)
class DistillingTimes:
    """What was measured."""

    student: str
    backbones: tuple[str, str]
    """Of teacher and student."""
    scale: tuple[int, int]
    """Largest scale of a view ``(long, short)``, px."""
    batch_size: int
    """Images of a step."""
    teacher_batch: int
    device: str
    machine: Mapping[str, str]
    """Cores, decoding processes and versions."""
    steps: Mapping[str, StepTimes]
    cache: CacheTimes
    views_per_image: int
    epochs: int
    break_even_students: int | None

    def ratio(self, way: str) -> float:
        """Median time of a step alone over that of a plain one."""
        return self.steps[way].total.median / self.steps[PLAIN].total.median

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "ratios": {way: self.ratio(way) for way in self.steps}}


def measure_distilling(
    config: DistillingConfig,
    plan: ViewSet,
    cache: CacheConfig,
    teacher: LogitExtractor,
    student: tuple[str, StudentConfig],
    *,
    machine: Placement,
    folder: Path,
    show: ShowRounds,
) -> tuple[DistillingTimes, Path]:
    """Write a small store, then take the student's step the three ways.

    Args:
        config: How often.
        plan: The views of the images that are used.
        cache: Of the store.
        teacher: With the weights that are at hand; they change no time.
        student: Its name, and what it is; one that reads the teacher.
        machine: Where to train.
        folder: For the store; must be empty.
        show: Shows the rounds.

    Returns:
        The figures, and the path of the store.
    """
    name, students = student
    passes = CachePasses(plan, _few_partitions(cache, len(plan)), teacher, folder)
    cached = passes.time(config.rounds, show)
    bench = StudentSteps(students, plan.conventions, plan.manifest, machine)
    several = ways(plan, teacher.model, TargetStore.open(passes.store))
    timed = bench.time(several, config.rounds, config.steps, show)
    epochs, batch = students.train.epochs, students.train.batch_size
    return DistillingTimes(
        student=name,
        backbones=(teacher.model.spec.name, students.detector.backbone),
        scale=max(plan.views.scales),
        batch_size=batch,
        teacher_batch=cache.batch_size,
        device=device_name(machine.device),
        machine=_machine(machine),
        steps=timed,
        cache=cached,
        views_per_image=len(cache.views.numbers),
        epochs=epochs,
        break_even_students=_break_even(cached, timed, len(cache.views.numbers), epochs, batch),
    ), passes.store


def few_views(views: Views) -> Views:
    """Views that take as long each as a recipe's, but no more of an image than two."""
    return replace(views, epochs=min(2, views.epochs)) if isinstance(views, PerEpochViewsConfig) else views


def _few_partitions(cache: CacheConfig, views: int) -> CacheConfig:
    return replace(cache, views_per_partition=-(-views // PARTITIONS))


def _break_even(
    cached: CacheTimes, steps: Mapping[str, StepTimes], views_per_image: int, epochs: int, batch: int
) -> int | None:
    """Students after which the store has paid for itself; of one image, for their number cancels out."""
    once = views_per_image * cached.stage.median / cached.views / SECONDS_PER_HOUR
    seen = epochs / batch / SECONDS_PER_HOUR
    cost = StudentCost(
        name="",
        epochs=epochs,
        hours_from_store=seen * steps[STORED].loaded.median,
        hours_in_the_loop=seen * steps[ONLINE].loaded.median,
    )
    return break_even(once, (cost,))


def _machine(machine: Placement) -> dict[str, str]:
    return {
        "threads": str(torch.get_num_threads()),
        "decoding processes": str(machine.workers),
        **versions(PACKAGES),
    }
