"""``ldp plan``: what a recipe will cost on this machine, before it runs."""

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from pipeline.cli.options import (
    CHANGES,
    JSON,
    RECIPE,
    Params,
    argument,
    command,
    copied_recipe,
    override,
    require_least,
    write_params,
)
from pipeline.core.config import load_section
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import load_students, run_paths
from pipeline.cost.card import gather_statistics, make_card, render_card
from pipeline.cost.probe import STORED, Probe, ProbeConfig, probe_machine
from pipeline.cost.timer import machine_facts
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig
from pipeline.detector.config import DetectorConfig
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
    argument(
        "--annotations", type=Path, metavar="FILE", help="take the statistics from this COCO file instead"
    ),
    argument(
        "--images", type=int, metavar="N", help="its images stand for so many; COCO's train2017 has 118287"
    ),
)
def plan_command(arguments: argparse.Namespace) -> None:
    """Finds the points of a sample of the recipe's views from the annotations, and measures on this machine.

    What is measured is the teacher's forward pass, the writing and reading of a small store, and a training
    step of the students, all at the recipe's size. Neither images nor weights are needed. The formula stands
    below the figures.
    """
    require_least(arguments, images=1)
    with copied_recipe(arguments) as (params, path):
        teacher, views = load_teacher(path), load_section(CacheConfig, "cache_teacher", path).views
        total, manifest = _read(path, arguments.annotations)
        # Images without boxes are left out of training, as many of all as of the sample.
        images = round((arguments.images or total) * len(manifest.images) / max(1, total))
        students = load_students(StudentConfig, path)
        epochs = {name: student.train.epochs for name, student in students.items()}
        device = machine(SINGLE_PROCESS).device
        for_probe(params, path, GPU_BATCH if device.type != "cpu" else 1)
        cache = load_section(CacheConfig, "cache_teacher", path)
        view_set = ViewSet(
            manifest=manifest,
            strides=teacher.strides,
            views=cache.views,
            regions=cache.regions,
            conventions=GFL_CONVENTIONS,
        )
        statistics = gather_statistics(view_set, cache, teacher, images, len(views.numbers))
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
    write_params(override(params, values), path)


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
