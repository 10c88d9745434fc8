"""``ldp teacher evaluate``: COCO AP of any teacher, or of what a store holds of it."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from pipeline.cli.agreement import coco_results
from pipeline.cli.options import JSON, RECIPE, argument, command
from pipeline.core.config import load_section
from pipeline.core.errors import CacheError, ConfigError
from pipeline.core.files import write_json
from pipeline.core.markdown import markdown_table
from pipeline.core.paths import SPLITS, find_recipe, run_paths
from pipeline.core.progress import show_progress
from pipeline.datasets.coco import read_coco
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.device import device
from pipeline.detector.head import Integral
from pipeline.detector.model import ModelSpec
from pipeline.evaluation.coco_ap import SUMMARY, evaluate
from pipeline.evaluation.detect import Result, detect
from pipeline.evaluation.postprocess import Detections, select_detections
from pipeline.onnx.models import ModelHandle, open_model, read_onnx
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import load_inputs
from pipeline.views.box_ops import clip_boxes, decode_boxes
from pipeline.views.geometry import scale_factors
from pipeline.views.manifest import Manifest, read_split
from pipeline.views.summary import AREA_EDGES
from pipeline.views.types import LabeledView, SoftTargets

BATCH_SIZE = 8

Row = Mapping[str, float | None]


DATASET = (
    RECIPE,
    argument(
        "--dataset",
        type=Path,
        metavar="FOLDER",
        help="with annotations/instances_SPLIT.json and the images in SPLIT/; default: the recipe's",
    ),
    argument("--split", choices=SPLITS, default="val", help="default: val"),
    argument(
        "--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="default: the teacher's fixed input"
    ),
)


@command(
    argument("--description", type=Path, metavar="FILE.yaml", help="of an ONNX teacher"),
    *DATASET,
    argument("--stored", type=Path, metavar="STORE", help="a store of the recipe's teacher and images"),
    JSON,
)
def evaluate_command(arguments: argparse.Namespace) -> None:
    """Runs a recipe's teacher, or an ONNX file, over a split and prints COCO's figures in percent.

    With --stored, detections are decoded from a store's points as well. A store has class logits in the main
    region alone, which is where the annotations put the objects: that AP is not the teacher's own, and stands
    beside that of the live teacher at the very same points.
    """
    rows = _stored(arguments.stored, find_recipe(arguments.recipe)) if arguments.stored else _live(arguments)
    cells = [
        [name, *("-" if row[metric] is None else f"{row[metric]:.2f}" for metric in SUMMARY)]
        for name, row in rows.items()
    ]
    sys.stdout.write(markdown_table(["", *SUMMARY], cells))
    if arguments.json:
        write_json(arguments.json, {name: dict(row) for name, row in rows.items()})


def read_dataset(arguments: argparse.Namespace) -> Manifest:
    """Annotated images: a dataset's folder, or a split of a recipe's, as the command line names them."""
    folder, split = arguments.dataset, arguments.split
    if folder is None:
        return read_split(run_paths(find_recipe(arguments.recipe)), split)
    return read_coco(folder / "annotations" / f"instances_{split}.json", str(folder), split)


def _live(arguments: argparse.Namespace) -> dict[str, Row]:
    """A teacher on a split."""
    manifest = read_dataset(arguments)
    if arguments.description:
        files: ModelHandle = read_onnx(arguments.description, manifest.categories)
    else:
        files = open_model(run_paths(find_recipe(arguments.recipe)).teacher_weights, manifest.categories)
    scale = choose_scale(files, arguments.scale)
    return {files.spec.name: _summary(manifest, _detect(files, manifest, scale))}


def choose_scale(files: ModelHandle, given: list[int] | None) -> tuple[int, int]:
    """The test scale: as given, or the size of the teacher's input.

    Raises:
        ConfigError: The input takes any size and none is given, or one that it does not take.
    """
    if given is not None:
        scale = (given[0], given[1])
        files.spec.require_scales([scale], "--scale")
        return scale
    if files.spec.input_hw is None:
        raise ConfigError(f"{files.spec.name} takes images of any size: expected --scale LONG SHORT")
    height, width = files.spec.input_hw
    return width, height


def _detect(
    files: ModelHandle, manifest: Manifest, scale: tuple[int, int], precision: NetworkPrecision = "float32"
) -> list[Result]:
    return detect(
        files.load(),
        manifest,
        scale,
        batch_size=BATCH_SIZE,
        device=device(),
        progress=lambda batches, total: show_progress(batches, total, "evaluate"),
        precision=precision,
    )


def _summary(manifest: Manifest, results: list[Result]) -> Row:
    return evaluate(manifest, results, AREA_EDGES).summary


def _stored(path: Path, params: Path) -> dict[str, Row]:
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

    def at_points(targets: Iterable[SoftTargets]) -> Row:
        pairs = zip(views, targets, strict=True)
        detections = {view.key.image_id: detect_at_points(view, soft, setup.spec) for view, soft in pairs}
        return _summary(manifest, coco_results(manifest, detections))

    return {
        "from the store's main-region points": at_points(view.soft_targets() for view in stored),
        "live, at the same points": at_points(live),
        "live, all points": _summary(
            manifest, _detect(setup.files, manifest, config.views.scales[0], config.forward_precision)
        ),
    }


def detect_at_points(view: LabeledView, soft: SoftTargets, spec: ModelSpec) -> Detections:
    """Detections among the main-region points of a view that is not flipped, px of the original image.

    The main region is where the annotations put the objects; a store has no class logits elsewhere, where a
    detector would be wrong. So their AP is not the detector's: it is for comparison with other logits at the
    same points.
    """
    assert not view.geometry.flip, "boxes are not mirrored back"
    main = view.points.main_region
    grid = spec.pyramid.grid(view.geometry.padded_hw)
    flat = grid.flatten(view.points.level[main], view.points.position[main])
    stride = torch.from_numpy(grid.point_strides[flat])
    distances = Integral(spec.bins - 1)(torch.from_numpy(soft.edge_logits[main])) * stride[:, None]
    corner = torch.tensor(view.geometry.content_top_left[::-1])
    boxes = decode_boxes(torch.from_numpy(grid.points[flat]) - corner, distances)
    boxes = clip_boxes(boxes, view.geometry.content_hw) / torch.from_numpy(scale_factors(view.geometry))
    return select_detections(boxes, torch.from_numpy(soft.cls_logits).sigmoid(), spec.suppression)
