"""``ldp plan`` and ``ldp bench``: what a recipe costs on this machine, and beside torchvision."""

import argparse
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch
from msgspec import structs

from pipeline.cli.options import CHANGES, JSON, RECIPE, argument, command, copied_recipe, require_least
from pipeline.core.config import load_section
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError, DatasetError
from pipeline.core.files import write_json
from pipeline.core.paths import load_students, require_student, run_paths
from pipeline.core.progress import break_even, describe_bytes, timed_call
from pipeline.core.tables import align, markdown_table
from pipeline.cost.probe import MODES, PEER, PLAIN, STORED, Probe, take_turns
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig
from pipeline.detector.config import DetectorConfig
from pipeline.detector.device import device
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.layout import StoreLayout, estimate_bytes, layout_store
from pipeline.training.config import PrepareTeacherConfig
from pipeline.views.geometry import PerEpochViewsConfig
from pipeline.views.manifest import Manifest, keep_trainable, read_split

BARE, STAGE = "bare teacher forward", "cache stage"
MIN_VIEWS, MAX_VIEWS, PROBED_PIXELS = 4, 64, 4_000_000
"""Views of the card's probe: as many as have these pixels."""
BATCH = 2
"""Images of a probed step: the published runs' number per GPU."""
SAMPLED_IMAGES = 500
"""Of all images, evenly spaced: the mean number of kept points is then known to some 4 %."""
SECONDS_PER_HOUR = 3600

FORMULA = """\
the store      = views x (assign + teacher's forward pass + quantize and write), once
from the store = epochs x images x (read + student's step)
in the loop    = epochs x images x (assign + teacher's forward pass + student's step)
break-even     = the smallest number n of students with  the store + n x from the store < n x in the loop
Forward pass and step are measured on drawn images and scaled by the mean padded pixels of a view, reading and
writing by its points. Decoding is left out: a student decodes either way, in other processes. One device;
GPUs divide the hours."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What was measured of a recipe, seconds of a view or of an image; its hours are by :data:`FORMULA`."""

    images: int
    views: int
    points_per_view: float
    bytes_per_view: float
    assign: float
    teacher: float
    write: float
    read: float
    students: Mapping[str, tuple[int, float]]
    """Epochs, and the seconds of a step by its images, by name."""

    def student_hours(self, name: str) -> tuple[float, float]:
        """From the store, and with the teacher in the loop."""
        epochs, step = self.students[name]
        shown = epochs * self.images / SECONDS_PER_HOUR
        return shown * (self.read + step), shown * (self.assign + self.teacher + step)

    def break_even(self) -> int | None:
        """Students of the mean cost from which on the store pays; ``None`` if reading costs more."""
        hours = self.views * (self.assign + self.teacher + self.write) / SECONDS_PER_HOUR
        saved = fmean(online - stored for stored, online in map(self.student_hours, self.students))
        return break_even(hours, saved)

    def render(self) -> str:
        """The card as text, with its formula."""
        steps = {"assign points": self.assign, "teacher": self.teacher, "quantize and write": self.write}
        store, view = describe_bytes(self.views * self.bytes_per_view), describe_bytes(self.bytes_per_view)
        rows = [
            ("images", f"{self.images:,}", ""),
            ("views", f"{self.views:,}", f"{self.points_per_view:,.0f} kept points each"),
            ("store, at most about", store, f"{view} a view"),
        ]
        for name, seconds in steps.items():
            rows.append((name, _hours(self.views * seconds / SECONDS_PER_HOUR), f"{_time(seconds)} a view"))
        rows.append(("break-even, students", str(self.break_even() or "never"), ""))
        students = [
            (name, str(epochs), _time(step), *map(_hours, self.student_hours(name)))
            for name, (epochs, step) in self.students.items()
        ]
        head = ("student", "epochs", "step, an image", "from the store", "in the loop")
        return f"{align(rows)}\n{markdown_table(head, students)}\n{FORMULA}\n"


def _hours(hours: float) -> str:
    return f"{hours:,.2f} h" if hours < 10 else f"{hours:,.0f} h"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


@command(
    RECIPE,
    CHANGES,
    argument("--annotations", type=Path, metavar="FILE", help="take statistics from this COCO file instead"),
    argument("--images", type=int, metavar="N", help="its images stand for N; train2017 has 118287"),
)
def plan_command(arguments: argparse.Namespace) -> None:
    """Finds the points of a sample of the recipe's views from the annotations, and measures on this machine.

    What is measured is the teacher's forward pass, the writing and reading of a small store, and a training
    step of the students, all at the recipe's size. Neither images nor weights are needed.
    """
    require_least(arguments, images=1)
    with copied_recipe(arguments) as path:
        total, manifest = _read(path, arguments.annotations)
        # Images without boxes are left out of training, as many of all as of the sample.
        images = round((arguments.images or total) * len(manifest.images) / max(1, total))
        if not images:
            raise DatasetError(f"{manifest.root}: expected images with boxes, but there are none")
        card = plan(path, manifest, images)
    facts = {"recipe": arguments.recipe, "annotations": str(arguments.annotations or manifest.root)}
    facts |= _machine_facts()
    sys.stdout.write(f"{'; '.join(map(': '.join, facts.items()))}\n\n{card.render()}")


def plan(recipe: Path, manifest: Manifest, images: int) -> Card:
    """Measure what views of a sample take, which stand for ``images``; leaves files beside the ``recipe``."""
    cache, students = load_section(CacheConfig, "cache_teacher", recipe), load_students(StudentConfig, recipe)
    views = max(MIN_VIEWS, min(MAX_VIEWS, PROBED_PIXELS // cache.views.largest_pixels))
    probe = _probe(recipe, views, BATCH)
    rows = np.linspace(0, len(manifest.images) - 1, min(len(manifest.images), SAMPLED_IMAGES)).astype(int)
    sample = replace(probe.view_set, manifest=replace(manifest, images=manifest.images[rows]))
    layout, assign = timed_call(layout_store, sample, cache, probe.teacher.model.spec, fingerprint={})
    measure = partial(take_turns, rounds=5, budget=10.0)
    passes = {STAGE: probe.write_store, BARE: probe.bare_pass(cache.batch_size)}
    bare = median(measure(passes, len(probe.view_set))[BARE])
    store, times = TargetStore.open(probe.output), probe.times
    _, read = timed_call(lambda: [store.read(key) for key in store.keys])
    steps = dict[DetectorConfig, float]()
    for one in {one.detector: one for one in students.values()}.values():
        small = structs.replace(one, train=structs.replace(one.train, batch_size=BATCH))
        steps[one.detector] = median(measure(probe.steps(small, [STORED]), BATCH)[STORED])
    points, pixels = _view_means(layout)
    drawn_points, drawn_pixels = _view_means(probe.layout)
    by_points, by_pixels = points / max(1.0, drawn_points), pixels / drawn_pixels
    return Card(
        images=images,
        views=images * len(cache.views.numbers),
        points_per_view=points,
        bytes_per_view=estimate_bytes(layout) / len(layout.table),
        assign=assign / len(layout.table),
        teacher=bare * by_pixels,
        write=(times.quantize + times.write) / times.views * by_points,
        read=read / len(store.keys) * by_points,
        students={
            name: (one.train.epochs, steps[one.detector] * by_pixels) for name, one in students.items()
        },
    )


def _view_means(layout: StoreLayout) -> tuple[float, float]:
    """Points and padded pixels of a view."""
    padded_hw = layout.table.geometry[:, 4:6].astype(float)
    return float(layout.table.counts[:, 0].mean()), float(padded_hw.prod(axis=1).mean())


def _probe(recipe: Path, views: int, batch_size: int) -> Probe:
    """A recipe's probe beside it, of an image's views of two epochs at most."""
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", recipe).detector
    if teacher is None:
        raise ConfigError(
            f"{recipe}: prepare_teacher.detector: expected the architecture that is to be measured, but got "
            "null; what an ONNX teacher costs, `ldp teacher evaluate` shows"
        )
    cache = load_section(CacheConfig, "cache_teacher", recipe)
    if isinstance(cache.views, PerEpochViewsConfig):
        few = structs.replace(cache.views, epochs=min(2, cache.views.epochs))
        cache = structs.replace(cache, views=few)
    return Probe(teacher, cache, views=views, batch_size=batch_size, folder=recipe.parent / "probe")


def _read(recipe: Path, annotations: Path | None) -> tuple[int, Manifest]:
    """How many images there are, and those that are trained on."""
    config = load_section(PrepareDataConfig, "prepare_data", recipe)
    if annotations is not None:
        manifest = read_coco(annotations, str(annotations), "")
    elif config.coco is not None:
        train, root = config.coco.train, dataset_root(config.coco.root)
        if not Path(root, train.annotations).is_file():
            raise ConfigError(
                f"{Path(root, train.annotations)}: expected an annotation file, but there is none; link the "
                "dataset, or take the statistics from a sample with --annotations FILE --images N"
            )
        manifest = read_coco(Path(root, train.annotations), root, train.images)
        manifest = replace(manifest, images=manifest.images[: train.limit])
    else:
        manifest = read_split(run_paths(recipe), "train")
    return len(manifest.images), keep_trainable(manifest, keep_empty=config.keep_empty_images)


@command(
    RECIPE,
    CHANGES,
    JSON,
    argument("--student", metavar="NAME", help="default: the first one with the most distillation losses"),
    argument("--views", type=int, default=64, help="views that are cached, at least; default: 64"),
    argument("--rounds", type=int, default=5, help="how often each is measured; default: 5"),
    argument("--batches", type=int, nargs="+", default=[], metavar="N", help="of the teacher, to be timed"),
    argument("--steps", type=int, default=10, help="of a run with the data loader, 0 for none; default: 10"),
)
def bench_command(arguments: argparse.Namespace) -> None:
    """Measures in one process, in turns, what distillation costs here.

    A student's training step plain, with the teacher in the loop, from a store, and a step of torchvision's
    fcos_resnet50_fpn at the same size, batch and precision; the cache stage beside the teacher's forward pass
    alone. Weights are random and images drawn, so no dataset is needed. LDP_DEVICE names the device.
    """
    require_least(arguments, views=1, rounds=1, steps=0)
    with copied_recipe(arguments) as path:
        students = load_students(StudentConfig, path)
        name = arguments.student or max(students, key=lambda one: students[one].loss.terms)
        student = students[require_student(name, path)]
        if not student.loss.reads_teacher:
            raise ConfigError(f"ldp bench: students.{name}: expected a student that reads the teacher")
        batch = student.train.batch_size
        probe = _probe(path, arguments.views, batch)
        teacher, views = probe.teacher, len(probe.view_set)
        passes = {STAGE: probe.write_store, BARE: probe.bare_pass(teacher.config.batch_size)}
        passes |= {f"{BARE}, in batches of {size}": probe.bare_pass(size) for size in arguments.batches}
        cached = take_turns(passes, views, arguments.rounds)
        steps = take_turns(probe.steps(student, MODES), 1, arguments.rounds)
        if arguments.steps:
            steps[f"{STORED}, with loading"] = [probe.loaded_step(student, arguments.steps)]
    facts = {
        "command": f"`{shlex.join(['ldp', *sys.argv[1:]])}`",
        "date": date.today().isoformat(),
        "teacher": f"{teacher.model.spec.name}, {teacher.config.forward_precision}",
        "student": f"{name}, {student.detector.backbone}, {student.train.precision}",
        "views": "x".join(map(str, max(teacher.config.views.scales))),
        **_machine_facts(),
        "decoding processes": str(probe.machine.workers),
    }
    by_step = compare(f"step of {batch} images", steps, {"/ plain": PLAIN, "/ torchvision": PEER})
    what = f"a view of {views}, in batches of {teacher.config.batch_size}"
    by_view = compare(what, cached, {"/ bare forward": BARE})
    sys.stdout.write(f"{'; '.join(map(': '.join, facts.items()))}\n\n{by_step}\n{by_view}")
    if arguments.json:
        write_json(arguments.json, {**facts, "steps": steps, "cache": cached})


def compare(what: str, seconds: Mapping[str, Sequence[float]], beside: Mapping[str, str]) -> str:
    """A table of medians, and their ratios to those of the candidates that the columns are ``beside``."""
    medians = {name: median(rounds) for name, rounds in seconds.items()}
    rows: list[Sequence[str]] = [
        [
            name,
            f"{medians[name] * 1e3:,.1f}",
            f"{min(rounds) * 1e3:,.1f} - {max(rounds) * 1e3:,.1f}",
            *(f"{medians[name] / medians[other]:.3f}" for other in beside.values()),
        ]
        for name, rounds in seconds.items()
    ]
    return markdown_table([what, "ms", "lowest - highest", *beside], rows)


def _machine_facts() -> dict[str, str]:
    """What a measurement was made with."""
    chosen = device()
    return {
        "device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else str(chosen),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        **{package: version(package) for package in ("torch", "torchvision", "zarr")},
    }
