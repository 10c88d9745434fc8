"""``ldp plan`` and ``ldp bench``: what a recipe costs on this machine, and beside torchvision."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from msgspec import structs

from pipeline.cli import options
from pipeline.cli.options import CHANGES, JSON, RECIPE, argument, command
from pipeline.core.config import load_section
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError, DatasetError
from pipeline.core.files import write_json
from pipeline.core.paths import load_students, require_student, run_paths
from pipeline.core.progress import timed_call
from pipeline.core.tables import markdown_table
from pipeline.cost.card import ASSIGN, TEACHER, WRITE, Card
from pipeline.cost.probe import MODES, PEER, PLAIN, STORED, Probe
from pipeline.cost.timer import Repeats, machine_facts, take_turns
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.expected import estimate_bytes
from pipeline.teacher.run import StoreLayout, layout_store
from pipeline.training.config import PrepareTeacherConfig
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.views.geometry import PerEpochViewsConfig
from pipeline.views.manifest import Manifest, keep_trainable, read_split

BARE, STAGE = "bare teacher forward", "cache stage"
SAMPLED_IMAGES = 500
"""Of all images, evenly spaced: the mean number of kept points is then known to some 4 %."""
ROUNDS = 5
MIN_VIEWS, MAX_VIEWS, PROBED_PIXELS = 4, 64, 4_000_000
"""Views of the probe: as many as have these pixels."""
BUDGET_SECONDS = 10.0
"""A round of measurements that takes longer is the only one."""
BATCH = 2
"""Images of a probed step: the published runs' number per GPU."""


@command(
    RECIPE,
    CHANGES,
    argument("--annotations", type=Path, metavar="FILE", help="take statistics from this COCO file instead"),
    argument("--images", type=int, metavar="N", help="its images stand for N; train2017 has 118287"),
)
def plan_command(arguments: argparse.Namespace) -> None:
    """Finds the points of a sample of the recipe's views from the annotations, and measures on this machine.

    What is measured is the teacher's forward pass, the writing and reading of a small store, and a training
    step of the students, all at the recipe's size. Neither images nor weights are needed. The formula stands
    below the figures.
    """
    options.require_least(arguments, images=1)
    with options.copied_recipe(arguments) as path:
        total, manifest = _read(path, arguments.annotations)
        # Images without boxes are left out of training, as many of all as of the sample.
        images = round((arguments.images or total) * len(manifest.images) / max(1, total))
        if not images:
            raise DatasetError(f"{manifest.root}: expected images with boxes, but there are none")
        card = plan(path, manifest, images)
    facts = {"recipe": arguments.recipe, "annotations": str(arguments.annotations or manifest.root)}
    facts |= machine_facts(machine(SINGLE_PROCESS).device)
    sys.stdout.write(f"{_listed(facts)}\n\n{card.render()}")


def plan(recipe: Path, manifest: Manifest, images: int) -> Card:
    """Lay out the views of a sample, which stand for those of so many images, and measure what they take.

    Drawn images and stores are left beside the ``recipe``, which is a copy.
    """
    cache, students = load_section(CacheConfig, "cache_teacher", recipe), load_students(StudentConfig, recipe)
    views = max(MIN_VIEWS, min(MAX_VIEWS, PROBED_PIXELS // cache.views.largest_pixels))
    probe, device = _probe(recipe, views, BATCH), machine(SINGLE_PROCESS).device
    rows = np.linspace(0, len(manifest.images) - 1, min(len(manifest.images), SAMPLED_IMAGES)).astype(int)
    sample = replace(probe.view_set, manifest=replace(manifest, images=manifest.images.take(rows)))
    layout, assign = timed_call(layout_store, sample, cache, probe.teacher.model.spec, fingerprint={})
    measure = partial(take_turns, rounds=ROUNDS, device=device, budget=BUDGET_SECONDS)
    work = {STAGE: probe.write_store, BARE: probe.bare_pass()}
    bare = measure(work, pieces=len(probe.view_set))[BARE].median
    store, times = probe.open_store(), probe.times
    _, read = timed_call(lambda: [store.read(key) for key in store.keys])
    steps = {  # of each architecture once
        detector: measure(probe.steps(_from_scratch(one, BATCH), [STORED]), pieces=BATCH)[STORED].median
        for detector, one in {one.detector: one for one in students.values()}.items()
    }
    points, boxes, pixels = _view_means(layout)
    drawn_points, _, drawn_pixels = _view_means(probe.layout)
    by_points, by_pixels = points / max(1.0, drawn_points), pixels / drawn_pixels
    return Card(
        images=images,
        views=images * len(cache.views.numbers),
        points_per_view=points,
        boxes_per_view=boxes,
        bytes_per_view=estimate_bytes(layout.schema, layout.table) / len(layout.table),
        cache={
            ASSIGN: assign / len(layout.table),
            TEACHER: bare * by_pixels,
            WRITE: (times.quantize + times.write) / times.views * by_points,
        },
        read=read / len(store.keys) * by_points,
        students={
            name: (one.train.epochs, steps[one.detector] * by_pixels) for name, one in students.items()
        },
    )


def _view_means(layout: StoreLayout) -> tuple[float, float, float]:
    """Points, boxes and padded pixels of a view."""
    points, _, boxes = layout.table.counts.mean(axis=0).tolist()
    return points, boxes, float(layout.table.geometry[:, 4:6].astype(float).prod(axis=1).mean())


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
    here, folder = machine(SINGLE_PROCESS), recipe.parent / "probe"
    return Probe(teacher, cache, views=views, batch_size=batch_size, machine=here, folder=folder)


def _from_scratch(student: StudentConfig, size: int) -> StudentConfig:
    """From random weights, with steps of so many images."""
    return structs.replace(student, train=structs.replace(student.train, pretrained=False, batch_size=size))


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
    options.require_least(arguments, views=1, rounds=1, steps=0)
    with options.copied_recipe(arguments) as path:
        name, student = _choose_student(path, arguments.student)
        batch = student.train.batch_size
        probe = _probe(path, arguments.views, batch)
        teacher, device, views = probe.teacher, probe.machine.device, len(probe.view_set)
        passes = {STAGE: probe.write_store, BARE: probe.bare_pass()}
        passes |= {f"{BARE}, in batches of {size}": probe.bare_pass(size) for size in arguments.batches}
        cached = take_turns(passes, arguments.rounds, device, views)
        steps = take_turns(probe.steps(student, MODES), arguments.rounds, device)
        if arguments.steps:
            loaded = probe.loaded_step(student, arguments.steps)
            steps[f"{STORED}, with loading"] = Repeats(loaded, loaded, loaded)
    facts = {
        "command": f"`{shlex.join(['ldp', *sys.argv[1:]])}`",
        "date": date.today().isoformat(),
        "teacher": f"{teacher.model.spec.name}, {teacher.config.forward_precision}",
        "student": f"{name}, {student.detector.backbone}, {student.train.precision}",
        "views": "x".join(map(str, max(teacher.config.views.scales))),
        **machine_facts(device),
        "decoding processes": str(probe.machine.workers),
    }
    by_step = compare(f"step of {batch} images", steps, {"/ plain": PLAIN, "/ torchvision": PEER})
    what = f"a view of {views}, in batches of {teacher.config.batch_size}"
    by_view = compare(what, cached, {"/ bare forward": BARE})
    sys.stdout.write(f"{_listed(facts)}\n\n{by_step}\n{by_view}")
    if arguments.json:
        measured = {"steps": steps, "cache": cached}
        seconds = {what: {key: value._asdict() for key, value in by.items()} for what, by in measured.items()}
        write_json(arguments.json, {**facts, **seconds})


def _choose_student(path: Path, name: str | None) -> tuple[str, StudentConfig]:
    """The student that is named, or the one that has most to compute, from random weights."""
    students = load_students(StudentConfig, path)
    name = require_student(name, path) if name else max(students, key=lambda one: students[one].loss.terms)
    if not students[name].loss.reads_teacher:
        raise ConfigError(f"ldp bench: students.{name}: expected a student that reads the teacher")
    return name, _from_scratch(students[name], students[name].train.batch_size)


def compare(what: str, repeats: Mapping[str, Repeats], beside: Mapping[str, str]) -> str:
    """A table of medians, and their ratios to those of the candidates that the columns are ``beside``."""
    rows: list[Sequence[str]] = [
        [
            name,
            f"{each.median * 1e3:,.1f}",
            f"{each.lowest * 1e3:,.1f} - {each.highest * 1e3:,.1f}",
            *(f"{each.median / repeats[other].median:.3f}" for other in beside.values()),
        ]
        for name, each in repeats.items()
    ]
    return markdown_table([what, "ms", "lowest - highest", *beside], rows)


def _listed(facts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts.items())
