"""A tiny project as the stages leave it behind, with an untrained teacher that only the store remembers."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.codec.precision import Precision
from pipeline.core.config import merge, structure
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, gfl_spec, save_detector
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.report.runs import Curve, Role, Run
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.writer.partition import quantize_partition
from pipeline.store.writer.writer import finalise, init, write_partition
from pipeline.student.config import StudentConfig
from pipeline.teacher.fingerprint import store_fingerprint
from pipeline.views.classes import Category
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewsConfig
from pipeline.views.image_table import Annotation, ImageRecord, ImageTable
from pipeline.views.manifest import Manifest, write_manifest
from pipeline.views.types import LabeledView, SoftTargets

PARAMS = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
STUDENT = merge(PARAMS["student"], PARAMS["students"]["plain"])
DETECTOR = structure(DetectorConfig, STUDENT["detector"], "detector")
PRECISION = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.1)
CLASSES = ("ellipse", "rectangle", "triangle", "cross")
NO_LOSS = {
    "ld_weight": 0.0,
    "vlr_weight": 0.0,
    "ld_temperature": 10.0,
    "kd_weight": 0.0,
    "kd_temperature": 2.0,
}
LD_LOSS = {**NO_LOSS, "ld_weight": 0.25, "vlr_weight": 0.25}


def student(loss: Mapping[str, float], seed: int = 0) -> StudentConfig:
    section = copy.deepcopy(STUDENT)
    section["train"]["seed"] = seed
    return structure(StudentConfig, {**section, "loss": loss}, "student")


def run_of(name: str, config: StudentConfig | None, ap: float | None) -> Run:
    """A run with nothing but an AP."""
    role: Role = "teacher" if config is None else "distilled" if config.loss.reads_teacher else "plain"
    return Run(
        name=name,
        role=role,
        backbone=DETECTOR.backbone,
        parameters=None,
        student=config,
        metrics={"AP": ap},
        per_class={},
        precision_recall={"0.50": Curve([0.0, 1.0], [1.0, 0.0])},
        losses={},
        timing={"seconds": 1.0, "epochs": 2, "images": 10, "device": "cpu"},
    )


def write_project(root: Path, students: Mapping[str, StudentConfig], metrics: Mapping[str, Any]) -> None:
    """Everything that the report reads, below ``root``; nothing was detected, and no loss curve has a row."""
    train = _write_data(root)
    _write_store(root, train)
    views = 2 * len(train.images)
    timing = {"seconds": 2.0, "device": "cpu", "views": views, "computed_views": views}
    _write_json(root / "cache/timing.json", timing)
    fidelity = {"views": 2, "points": 9, "equal_regions": True, "kl_mean": 1e-5, "kl_max": 1e-4}
    errors = {"loss_error": 0.001, "gradient_error": 0.02, "gradient_cosine": 0.999}
    _write_json(root / "cache/fidelity.json", {**fidelity, **errors})
    _write_results(root, "teacher", root / "teacher", metrics)
    _write_json(root / "teacher/model/teacher.json", {"architecture": DETECTOR.to_json()})
    for name, config in students.items():
        _write_results(root, name, root / "students" / name, metrics)
        save_detector(GFL(config.detector), root / "students" / name / "model" / "student.safetensors", {})


def _write_data(root: Path) -> Manifest:
    """Two splits of noise, 96 x 80 px; the training split."""
    train, val = (_write_split(root, split, images) for split, images in (("train", 5), ("val", 4)))
    write_manifest(val, root / "data/val/manifest.json")
    write_manifest(train, root / "data/train/manifest.json")
    return train


def _write_split(root: Path, split: str, images: int) -> Manifest:
    rng = np.random.default_rng(images)
    folder = root / "data/rendered" / split
    folder.mkdir(parents=True)
    for image_id in range(images):
        noise = rng.integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{image_id}.png")
    return Manifest(
        root=str(root / "data/rendered"),
        folder=split,
        categories=tuple(Category(category_id=number + 1, name=name) for number, name in enumerate(CLASSES)),
        # The first image is empty.
        images=ImageTable.of(_record(rng, image_id, objects=image_id) for image_id in range(images)),
    )


def _record(rng: np.random.Generator, image_id: int, objects: int) -> ImageRecord:
    annotations = []
    for number in range(objects):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 20, 20), (50, 40, 46, 40)))
        category_id, box = int(rng.integers(1, len(CLASSES) + 1)), (x, y, width, height)
        annotations.append(
            Annotation(100 * image_id + number, category_id, *box, area=width * height, iscrowd=False)
        )
    return ImageRecord(
        image_id=image_id, file_name=f"{image_id}.png", height=80, width=96, annotations=tuple(annotations)
    )


def _write_store(root: Path, train: Manifest) -> None:
    view_set = ViewSet(
        manifest=train,
        strides=DETECTOR.strides,
        conventions=GFL_CONVENTIONS,
        views=ViewsConfig(scales=((96, 96),), flips=(False, True)),
        regions=RegionsConfig(),
    )
    views = list(view_set)
    table = ViewIndex.from_views(views)
    layout = StoreSchema(
        bins=DETECTOR.bins,
        num_classes=DETECTOR.num_classes,
        strides=DETECTOR.strides,
        precision=PRECISION,
        views_per_partition=4,
        fingerprint=store_fingerprint(
            view_set,
            gfl_spec(DETECTOR, view_set.conventions),
            DETECTOR.to_json(),
            "0" * 64,
            PRECISION,
            4,
            "float32",
        ),
        provenance={"teacher": "random numbers"},
        chunk_rows=8,
    )
    schema = fit_schema(layout, table)
    scratch = root / "scratch"
    init(scratch, schema, table)
    for index in range(schema.partitions):
        rows = views[schema.partition_views(index)]
        write_partition(scratch, index, quantize_partition(schema, rows, [_targets(view) for view in rows]))
    (root / "cache").mkdir()
    finalise(scratch, root / "cache/targets.zarr")


def _targets(view: LabeledView) -> SoftTargets:
    rng = np.random.default_rng([view.key.image_id, view.key.view])
    points, main = len(view.points), view.points.main_count
    return SoftTargets(
        edge_logits=rng.normal(0, 2, (points, 4, DETECTOR.bins)).astype(np.float32),
        cls_logits=rng.normal(-3, 2, (main, DETECTOR.num_classes)).astype(np.float32),
    )


def _write_results(root: Path, name: str, trained: Path, metrics: Mapping[str, Any]) -> None:
    evaluation = root / "evaluation" / name
    _write_json(evaluation / "summary.json", metrics)
    (evaluation / "detections.json").write_text("[]\n")
    rows = [f"{recall:.2f},0.0000,{iou}" for iou in ("0.50", "0.90") for recall in (0.0, 0.5, 1.0)]
    (evaluation / "precision_recall.csv").write_text("\n".join(["recall,precision,iou", *rows]) + "\n")
    _write_json(trained / "timing.json", {"seconds": 3.0, "device": "cpu", "epochs": 1, "images": 5})
    (trained / "loss.csv").write_text("step,loss\n")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
