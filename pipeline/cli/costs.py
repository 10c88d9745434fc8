"""``ldp plan`` and ``ldp bench``: what a recipe costs on this machine, and beside torchvision."""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

from pipeline.cli import options
from pipeline.cli.options import CHANGES, JSON, RECIPE, Params, argument, command
from pipeline.core.config import load_section
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import load_students, require_student, run_paths, student_names
from pipeline.core.tables import markdown_table
from pipeline.core.timing import break_even
from pipeline.cost import peer
from pipeline.cost.card import gather_statistics, make_card, render_card
from pipeline.cost.probe import (
    ONLINE,
    PEER,
    PLAIN,
    STORED,
    CacheTimes,
    Probe,
    ProbeConfig,
    StepTimes,
    probe_machine,
)
from pipeline.cost.timer import machine_facts
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import gfl_spec
from pipeline.regions.view_set import ViewSet
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.config import PrepareTeacherConfig
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.manifest import Manifest, keep_trainable, read_split

ROUNDS = 5
MIN_VIEWS, MAX_VIEWS, PROBED_PIXELS = 4, 64, 4_000_000
"""Views of the probe: as many as have these pixels."""
BUDGET_SECONDS = 10.0
"""A round of measurements that takes longer is the only one."""
GPU_BATCH = 2
"""Images of a probed step on a GPU (the published runs' number per GPU); on the CPU it is one."""


@command(
    RECIPE,
    CHANGES,
    JSON,
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
    with options.copied_recipe(arguments) as (params, path):
        teacher, views = load_teacher(path), load_section(CacheConfig, "cache_teacher", path).views
        total, manifest = _read(path, arguments.annotations)
        # Images without boxes are left out of training, as many of all as of the sample.
        images = round((arguments.images or total) * len(manifest.images) / max(1, total))
        students = load_students(StudentConfig, path)
        epochs = {name: student.train.epochs for name, student in students.items()}
        device = machine(SINGLE_PROCESS).device
        for_probe(params, path, GPU_BATCH if device.type != "cpu" else 1)
        cache = load_section(CacheConfig, "cache_teacher", path)
        spec = gfl_spec(teacher, GFL_CONVENTIONS)
        view_set = ViewSet(manifest, spec.strides, cache.views, cache.regions, GFL_CONVENTIONS)
        statistics = gather_statistics(view_set, cache, spec, images, len(views.numbers))
        probe = _probe(load_students(StudentConfig, path), cache, teacher, path.parent / "probe")
    card = make_card(statistics, probe, epochs, shutil.disk_usage(Path.cwd()).free)
    source, facts = str(arguments.annotations or manifest.root), machine_facts(device)
    sys.stdout.write(render_card(arguments.recipe, source, facts, card))
    if arguments.json:
        origin = {"recipe": arguments.recipe, "source": source, "machine": facts}
        write_json(arguments.json, {**origin, **card})


def load_teacher(recipe: Path) -> DetectorConfig:
    """The architecture of a recipe's teacher; a ``ConfigError`` if it is an ONNX file."""
    detector = load_section(PrepareTeacherConfig, "prepare_teacher", recipe).detector
    if detector is None:
        raise ConfigError(
            f"{recipe}: prepare_teacher.detector: expected the architecture that is to be measured, but got "
            "null; what an ONNX teacher costs, `ldp teacher evaluate` shows"
        )
    return detector


def for_probe(params: Params, path: Path, batch_size: int | None = None) -> None:
    """Write a recipe as it is measured: from random weights, and with an image's views of two epochs at most.

    The students' steps are of ``batch_size`` images, or of the recipe's.
    """
    values: Params = {}
    for name in params["students"]:
        values[f"students.{name}.train.pretrained"] = False
        if batch_size is not None:
            values[f"students.{name}.train.batch_size"] = batch_size
    if "epochs" in params["cache_teacher"]["views"]:
        values["cache_teacher.views.epochs"] = min(2, params["cache_teacher"]["views"]["epochs"])
    options.write_params(options.override(params, values), path)


def _probe(
    students: dict[str, StudentConfig], cache: CacheConfig, teacher: DetectorConfig, folder: Path
) -> Probe:
    """Measure each architecture of a student once, with the most losses that a student of it has."""
    by_losses = sorted(students, key=lambda name: students[name].loss.terms)
    measured = {students[name].detector: name for name in by_losses}
    views = max(MIN_VIEWS, min(MAX_VIEWS, PROBED_PIXELS // cache.views.largest_pixels))
    probe = probe_machine(
        teacher,
        {name: students[name] for name in measured.values()},
        cache,
        ProbeConfig(views=views, rounds=ROUNDS, budget=BUDGET_SECONDS, modes=(STORED,)),
        machine=machine(SINGLE_PROCESS),
        folder=folder,
    )
    kinds = {name: measured[student.detector] for name, student in students.items()}
    return replace(
        probe,
        steps={name: probe.steps[kind] for name, kind in kinds.items()},
        batch_sizes={name: probe.batch_sizes[kind] for name, kind in kinds.items()},
    )


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
    here = machine(SINGLE_PROCESS)
    with options.copied_recipe(arguments) as (recipe, path):
        views = len(load_section(CacheConfig, "cache_teacher", path).views.numbers)
        name = _choose_student(path, arguments.student)
        for_probe(recipe, path)
        student, teacher = load_section(StudentConfig, f"students.{name}", path), load_teacher(path)
        cache = load_section(CacheConfig, "cache_teacher", path)
        probe = probe_machine(
            teacher,
            {name: student},
            cache,
            ProbeConfig(
                views=arguments.views,
                rounds=arguments.rounds,
                loaded_steps=arguments.steps,
                batch_sizes=tuple(arguments.batches),
            ),
            machine=here,
            folder=path.parent / "probe",
        )
    facts = {
        "command": f"`{shlex.join(['ldp', *sys.argv[1:]])}`",
        "date": date.today().isoformat(),
        "teacher": f"{teacher.backbone}, {cache.forward_precision}",
        "student": f"{name}, {student.detector.backbone}, {student.train.precision}",
        "views": " x ".join(map(str, max(cache.views.scales))),
        **machine_facts(here.device),
        "decoding processes": str(here.workers),
    }
    text = render_probe(probe, name, student.train.epochs, views, facts)
    sys.stdout.write(text)
    if arguments.json:
        write_json(arguments.json, {**facts, **asdict(probe), "ratios": ratios(probe.steps[name])})


def _choose_student(path: Path, name: str | None) -> str:
    """The student that is named, or the one that has most to compute."""
    names = [require_student(name, path)] if name else student_names(path)
    students = {name: load_section(StudentConfig, f"students.{name}", path) for name in names}
    chosen = max(students, key=lambda name: students[name].loss.terms)
    if not students[chosen].loss.reads_teacher:
        raise ConfigError(f"ldp bench: students.{chosen}: expected a student that reads the teacher")
    return chosen


def render_probe(
    probe: Probe, student: str, epochs: int, views_per_image: int, facts: Mapping[str, str]
) -> str:
    """Steps, the cache stage, and from how many students on it has paid for itself."""
    steps, batch = probe.steps[student], probe.batch_sizes[student]
    count = students_to_pay(probe, student, epochs, views_per_image)
    pays = "with no number of students" if count is None else f"from {count} on"
    described = "; ".join(f"{name}: {value}" for name, value in facts.items())
    cache = probe.cache
    busy = ", ".join(f"{name} {share:.1%}" for name, share in cache.busy.items())
    return (
        f"{described}\n\n{_steps(steps, batch)}\n{_cache(cache)}\n{_batches(cache)}"
        f"busy in the cache stage: {busy}; bottleneck: {cache.bottleneck}\n"
        f"a view's targets: {cache.assign * 1e3:.2f} ms to assign, {cache.read * 1e3:.2f} ms to read\n"
        f"{views_per_image} views an image, {epochs} epochs: the store has paid for itself {pays}\n"
    )


def students_to_pay(probe: Probe, student: str, epochs: int, views_per_image: int) -> int | None:
    """Students of this kind from which on the store costs less; the number of images cancels out."""
    steps, cache = probe.steps[student], probe.cache
    online, stored = (
        steps[mode].step.median / probe.batch_sizes[student] + targets
        for mode, targets in ((ONLINE, cache.assign), (STORED, cache.read))
    )
    return break_even(views_per_image * cache.stage.median, epochs * (online - stored))


def ratios(steps: Mapping[str, StepTimes]) -> dict[str, dict[str, float]]:
    """Median step of each mode over that of a plain one, and over the peer's."""
    return {
        mode: {beside: times.step.median / steps[beside].step.median for beside in (PLAIN, PEER)}
        for mode, times in steps.items()
    }


def _steps(steps: Mapping[str, StepTimes], batch: int) -> str:
    rows = [
        [
            peer.NAME if mode == PEER else mode,
            f"{times.step.median * 1e3:,.1f}",
            f"{times.step.lowest * 1e3:,.1f} - {times.step.highest * 1e3:,.1f}",
            *(f"{ratio:.3f}" for ratio in ratios(steps)[mode].values()),
            "-" if times.loaded is None else f"{times.loaded * 1e3:,.1f}",
            "-" if times.peak_bytes is None else f"{times.peak_bytes / 1e6:,.0f}",
        ]
        for mode, times in steps.items()
    ]
    head = [f"step of {batch} images", "ms", "lowest - highest", "/ plain", "/ torchvision"]
    return markdown_table([*head, "with loading, ms", "peak MB"], rows)


def _cache(cache: CacheTimes) -> str:
    rows = [
        [
            name,
            f"{1 / repeats.median:,.2f}",
            f"{1 / repeats.highest:,.2f} - {1 / repeats.lowest:,.2f}",
            f"{cache.bare.median / repeats.median:.3f}",
        ]
        for name, repeats in (("bare teacher forward", cache.bare), ("cache stage", cache.stage))
    ]
    head = [f"{cache.views} views in batches of {cache.batch_size}", "views/s", "lowest - highest"]
    return markdown_table([*head, "/ bare forward"], rows)


def _batches(cache: CacheTimes) -> str:
    if cache.host is None:
        return ""
    rows = [
        [str(size), f"{1 / cache.forward[size].median:,.2f}", f"{1 / repeats.median:,.2f}"]
        for size, repeats in cache.evaluation.items()
    ]
    table = markdown_table(["teacher, batch", "forward views/s", "evaluation images/s"], rows)
    return f"{table}\na view takes {cache.host * 1e3:.2f} CPU ms of this process beside the teacher\n"
