"""``ldp bench``: measure what the library costs, with commands that anyone can repeat."""

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pipeline.benchmark.distilling import DistillingConfig, few_views, measure_distilling
from pipeline.benchmark.drawn import draw_dataset
from pipeline.benchmark.reading import ReadingConfig, measure_reading
from pipeline.benchmark.tables import render_distilling, render_reading
from pipeline.core.config import PARAMS, load_section, load_student
from pipeline.core.errors import ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import RunPaths, require_student, run_paths, student_names
from pipeline.core.progress import show_progress
from pipeline.detector.device import device
from pipeline.detector.gfl import GFL
from pipeline.detector.model import BoxModel
from pipeline.onnx.models import open_model
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.training.teacher_config import PrepareTeacherConfig
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.manifest import Manifest, read_split

logger = logging.getLogger(__name__)

READ_ROUNDS = 5
"""How often each reader reads each view, beside the rest."""


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the sub-commands."""
    parser = commands.add_parser(
        "bench",
        help="measure what distillation costs on this machine, beside plain training",
        description="Measures in one process, in turns: a student's training step plain, assigned on the "
        "fly, with the teacher in the loop, and from a store; the cache stage beside the teacher's forward "
        "pass alone; readers of the store. Takes the recipe's teacher and images where `dvc repro` has "
        "made them; else random weights, and images drawn as large as COCO's.",
    )
    add = parser.add_argument
    add("--recipe", type=Path, default=PARAMS, metavar="FILE", help="default: params.yaml")
    add("--student", metavar="NAME", help="default: the first one with the most distillation losses")
    add("--batch", type=int, metavar="N", help="images of a step; default: the student's batch_size")
    add("--views", type=int, default=64, help="views that are cached; default: 64")
    add("--rounds", type=int, default=5, help="how often each is measured; default: 5")
    add("--steps", type=int, default=10, help="of a run with the data loader; default: 10")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=distilling)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_read(actions)


def _add_read(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = actions.add_parser(
        "read",
        help="read views in random order, beside zarr, .npz, .pt and a memory map",
        description="Reads single views by key in random order with this project's reader, plain zarr, files "
        "of other formats with the same content, and tensorstore and zarrs if they are installed; checks "
        "first that all read the same values. Prints CPU time a view, and the views per second of a data "
        "loader's workers.",
    )
    add = parser.add_argument
    add("--store", type=Path, metavar="PATH", help="a finished store; default: one is generated")
    add("--views", type=int, default=500, help="views to read; default: 500")
    add("--points", type=int, default=900, help="mean kept points of a generated view; default: 900")
    add("--repeats", type=int, default=7, help="how often each reader reads each view; default: 7")
    add("--workers", type=int, default=2, help="processes of the data loader, 0 for none; default: 2")
    add("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.set_defaults(run=read)


def read(arguments: argparse.Namespace) -> None:
    """Run ``ldp bench read``."""
    for name, least in (("views", 1), ("points", 2), ("repeats", 1), ("workers", 0)):
        value = getattr(arguments, name)
        if value < least:
            raise ConfigError(f"ldp bench read: --{name}: expected {least} or more, but got {value}")
    config = ReadingConfig(
        store=arguments.store,
        views=arguments.views,
        points=arguments.points,
        repeats=arguments.repeats,
        workers=arguments.workers,
    )
    with tempfile.TemporaryDirectory(prefix="ldp-bench-") as folder:
        measured = measure_reading(config, Path(folder))
    sys.stdout.write(render_reading(measured))
    if arguments.json:
        write_json(arguments.json, measured.to_json())


def distilling(arguments: argparse.Namespace) -> None:
    """Run ``ldp bench``."""
    for name in ("views", "rounds", "steps", "batch"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"ldp bench: --{name}: expected 1 or more, but got {value}")
    recipe: Path = arguments.recipe
    name, student = _student(recipe, arguments.student, arguments.batch)
    cache = load_section(CacheConfig, "cache_teacher", recipe)
    cache = replace(cache, views=few_views(cache.views))
    images = max(student.train.batch_size, -(-arguments.views // len(cache.views.numbers)))
    with tempfile.TemporaryDirectory(prefix="ldp-bench-") as temporary:
        folder = Path(temporary)
        run = run_paths(recipe)
        manifest = _manifest(run, images, student, folder / "drawn")
        teacher = LogitExtractor(
            model=_model(run, recipe, manifest),
            manifest=manifest,
            batch_size=cache.batch_size,
            device=device(),
            precision=cache.forward_precision,
        )
        plan = _plan(cache, teacher)
        measured, store = measure_distilling(
            DistillingConfig(rounds=arguments.rounds, steps=arguments.steps),
            plan,
            cache,
            teacher,
            (name, student),
            machine=machine(SINGLE_PROCESS),
            folder=folder / "cached",
            show=show_progress,
        )
        sys.stdout.write(f"{recipe}: {render_distilling(measured)}\n")
        reading = ReadingConfig(store=store, views=len(plan), points=1, repeats=READ_ROUNDS, workers=0)
        (copies := folder / "copies").mkdir()
        read_times = measure_reading(reading, copies)
        sys.stdout.write(render_reading(read_times))
    kept = _kept(run)
    sys.stdout.write(_render_kept(kept))
    if arguments.json:
        figures = {**measured.to_json(), "reading": read_times.to_json(), "recipe_store": kept}
        write_json(arguments.json, figures)


def _student(recipe: Path, name: str | None, batch: int | None) -> tuple[str, StudentConfig]:
    """The student that is asked for, or the one that has most to compute."""
    names = [require_student(name, recipe)] if name else student_names(recipe)
    students = {name: load_student(StudentConfig, name, recipe) for name in names}
    chosen = max(students, key=lambda name: students[name].loss.terms)
    student = students[chosen]
    if not student.loss.reads_teacher:
        raise ConfigError(f"{recipe}: students.{chosen}: expected a student that reads the teacher")
    if batch is None:
        return chosen, student
    return chosen, replace(student, train=replace(student.train, batch_size=batch))


def _manifest(run: RunPaths, images: int, student: StudentConfig, drawn: Path) -> Manifest:
    """So many images of the recipe, or drawn ones."""
    if run.manifest("train").is_file():
        manifest = read_split(run, "train")
        if manifest.image_path(manifest.images[0]).is_file():
            logger.info("images: %s", manifest.root)
            return dataclasses.replace(manifest, images=manifest.images[:images])
    logger.info("images: %d drawn ones, for the recipe's are not here", images)
    return draw_dataset(drawn, images, student.detector.num_classes)


def _plan(cache: CacheConfig, teacher: LogitExtractor) -> ViewSet:
    """The views of all the teacher's images."""
    spec = teacher.model.spec
    return ViewSet(
        manifest=teacher.manifest,
        strides=spec.strides,
        views=cache.views,
        regions=cache.regions,
        conventions=spec.conventions,
    )


def _model(run: RunPaths, recipe: Path, manifest: Manifest) -> BoxModel:
    """The recipe's teacher, or one of its architecture."""
    if run.teacher_weights.is_file():
        logger.info("teacher: %s", run.teacher_weights)
        return open_model(run.teacher_weights, manifest.categories).load()
    detector = load_section(PrepareTeacherConfig, "prepare_teacher", recipe).detector
    if detector is None:
        raise ConfigError(
            f"{recipe}: prepare_teacher: expected a teacher that is prepared; run `dvc repro prepare_teacher`"
        )
    logger.info("teacher: random weights, for the recipe's are not here")
    return GFL(detector, GFL_CONVENTIONS)


def _kept(run: RunPaths) -> dict[str, Any] | None:
    """Bytes and fidelity of the recipe's own store, as it was written and verified."""
    if not run.fidelity.is_file() or not run.store.is_dir():
        return None
    statistics = TargetStore.open(run.store).statistics
    fidelity: dict[str, Any] = json.loads(run.fidelity.read_text())
    return {"bytes_per_view": statistics["bytes_per_view"], **fidelity}


def _render_kept(kept: dict[str, Any] | None) -> str:
    if kept is None:
        return "\nbytes and fidelity: nothing to tell before `dvc repro verify_cache`\n"
    return f"\nbytes and fidelity of the recipe's store: {json.dumps(kept, indent=1)}\n"
