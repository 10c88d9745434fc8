"""``ldp teacher evaluate``: COCO AP of any teacher, or of what a store holds of it."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.cli.agreement import COCO_AREA_EDGES
from pipeline.cli.annotated import read_dataset
from pipeline.cli.detections_at_points import detect_at_points
from pipeline.core.config import load_section
from pipeline.core.errors import CacheError, ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import find_recipe, run_paths
from pipeline.core.progress import show_progress
from pipeline.detector.device import device
from pipeline.evaluation.coco_ap import SUMMARY, evaluate
from pipeline.evaluation.detect import Result, detect, to_results
from pipeline.evaluation.postprocess import Detections
from pipeline.onnx.models import ModelHandle, open_model, read_onnx
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.types import SoftTargets

BATCH_SIZE = 8

Rows = Mapping[str, Mapping[str, float | None]]


def run(arguments: argparse.Namespace) -> None:
    """Run the sub-command."""
    rows = _stored(arguments.stored, find_recipe(arguments.recipe)) if arguments.stored else _live(arguments)
    sys.stdout.write(render(rows))
    if arguments.json:
        write_json(arguments.json, {name: dict(row) for name, row in rows.items()})


def _live(arguments: argparse.Namespace) -> Rows:
    """A teacher on a split."""
    manifest = read_dataset(arguments)
    if arguments.description:
        files: ModelHandle = read_onnx(arguments.description, manifest.categories)
    else:
        files = open_model(run_paths(find_recipe(arguments.recipe)).teacher_weights, manifest.categories)
    scale = choose_scale(files, arguments.scale)
    return {files.spec.name: _summary(manifest, _detect(files, manifest, scale))}


def choose_scale(files: ModelHandle, asked: list[int] | None) -> tuple[int, int]:
    """The test scale: as asked for, or the size of the teacher's input.

    Raises:
        ConfigError: The input takes any size and none is asked for, or one that it does not take.
    """
    if asked is not None:
        scale = (asked[0], asked[1])
        files.spec.require_scales([scale], "--scale")
        return scale
    if files.spec.input_hw is None:
        raise ConfigError(f"{files.spec.name} takes images of any size: expected --scale LONG SHORT")
    height, width = files.spec.input_hw
    return width, height


def _detect(files: ModelHandle, manifest: Manifest, scale: tuple[int, int]) -> list[Result]:
    return detect(
        files.load(),
        manifest,
        scale,
        batch_size=BATCH_SIZE,
        device=device(),
        progress=lambda batches, total: show_progress(batches, total, "evaluate"),
    )


def _stored(path: Path, params: Path) -> Rows:
    """What a store holds of a teacher beside that teacher, on the training images."""
    folder, store = run_paths(params), TargetStore.open(path)
    manifest = read_split(folder, "train")
    if store.fingerprint.get("images") != manifest.images_sha256:
        raise CacheError(f"{path}: expected a store of the training images of {params}")
    config = load_section(CacheConfig, "cache_teacher", params)
    setup = load_inputs(config, manifest, folder.teacher_weights)
    stored = [store.read(key) for key in store.keys if key.view == 0]
    if not stored or any(view.view.geometry.flip for view in stored):
        raise CacheError(f"{path}: expected view 0 of every image to be one that is not flipped")
    views = [view.view for view in stored]
    live = setup.load_teacher(device()).run(views)

    def at_points(targets: Iterable[SoftTargets]) -> Mapping[str, float | None]:
        found = {
            view.key.image_id: detect_at_points(view, soft, setup.spec)
            for view, soft in zip(views, targets, strict=True)
        }
        return _summary(manifest, _results(manifest, found))

    return {
        "from the store's main-region points": at_points(view.soft_targets() for view in stored),
        "live, at the same points": at_points(live),
        "live, all points": _summary(manifest, _detect(setup.files, manifest, config.views.scales[0])),
    }


def _results(manifest: Manifest, found: Mapping[int, Detections]) -> list[Result]:
    category_ids = [category.category_id for category in manifest.categories]
    return [row for image, detections in found.items() for row in to_results(image, detections, category_ids)]


def _summary(manifest: Manifest, results: list[Result]) -> Mapping[str, float | None]:
    return evaluate(manifest, results, COCO_AREA_EDGES).summary


def render(rows: Rows) -> str:
    """A Markdown table, percent."""
    lines = ["| | " + " | ".join(SUMMARY) + " |", "|---|" + "---|" * len(SUMMARY)]
    for name, row in rows.items():
        values = (row[metric] for metric in SUMMARY)
        lines.append(f"| {name} | " + " | ".join("-" if v is None else f"{v:.2f}" for v in values) + " |")
    return "\n".join(lines) + "\n"
