"""``ldp plan``: what a recipe will cost on this machine, before it runs."""

import argparse
import logging
import shutil
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.core.config import PARAMS, load_section, load_student
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import run_paths, student_names
from pipeline.core.progress import show_progress
from pipeline.cost.card import FORMULA, make_card, render_card
from pipeline.cost.probe import probe_machine
from pipeline.cost.views import gather_statistics
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig
from pipeline.detector.device import device
from pipeline.regions.view_set import ViewSet
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.teacher_config import PrepareTeacherConfig
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.manifest import Manifest, keep_trainable, read_split

logger = logging.getLogger(__name__)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-command."""
    parser = commands.add_parser(
        "plan",
        help="what a recipe will cost: views, store bytes, hours, and from how many students on it pays",
        description="Plans a sample of the recipe's views from the annotations, and measures on this machine "
        "the teacher's forward pass, the writing and reading of a small store, and a training step of the "
        "students, all at the recipe's size. Neither images nor weights are needed.",
        epilog=FORMULA,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", nargs="?", type=Path, default=PARAMS, metavar="RECIPE", help="a file; default: params.yaml")
    add("--annotations", type=Path, metavar="FILE", help="take the statistics from this COCO file instead")
    add("--images", type=int, metavar="N", help="its images stand for so many; COCO's train2017 has 118287")
    add("--json", type=Path, metavar="FILE", help="also write the card here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    if arguments.images is not None and arguments.images < 1:
        raise ConfigError(f"ldp plan: --images: expected 1 or more, but got {arguments.images}")
    recipe: Path = arguments.recipe
    config = load_section(CacheConfig, "cache_teacher", recipe)
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", recipe).detector
    if teacher is None:
        raise ConfigError(
            f"{recipe}: prepare_teacher.detector: expected the architecture that is to be measured, but got "
            "null; what an ONNX teacher costs, `ldp teacher evaluate` shows"
        )
    students = {name: load_student(StudentConfig, name, recipe) for name in student_names(recipe)}
    everything, manifest = _read(recipe, arguments.annotations)
    # Images without boxes are left out of training, as many of all as of the sample.
    images = round((arguments.images or everything) * len(manifest.images) / max(1, everything))
    plan = ViewSet(
        manifest=manifest,
        strides=teacher.strides,
        views=config.views,
        regions=config.regions,
        conventions=GFL_CONVENTIONS,
    )
    statistics = gather_statistics(plan, config, teacher, images, show_progress)
    with tempfile.TemporaryDirectory(prefix="ldp-plan-") as folder:
        probe = probe_machine(
            teacher,
            students,
            config,
            manifest,
            statistics.typical,
            device=device(),
            folder=Path(folder),
            announce=partial(logger.info, "measuring %s"),
        )
    source = str(arguments.annotations or manifest.root)
    card = make_card(str(recipe), source, statistics, probe, students, shutil.disk_usage(Path.cwd()).free)
    sys.stdout.write(render_card(card))
    if arguments.json:
        write_json(arguments.json, card.to_json())


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
