"""Run a detector over a split and collect detections in COCO's result format."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.core.errors import DatasetError
from pipeline.core.files import atomic_path
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel, ModelSpec
from pipeline.evaluation.postprocess import Detections, postprocess
from pipeline.views.geometry import ResizeMode, ViewGeometry, ViewsConfig, scale_factors
from pipeline.views.image_table import ImageRecord
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest

Result = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` (x, y, w, h in px of the original image), ``score``."""

Progress = Callable[[Iterable[list[ImageRecord]], int], Iterable[list[ImageRecord]]]
"""Wraps the batches, given their number, to show how far it is."""

SCORE_DECIMALS = 5
BOX_DECIMALS = 2


@torch.inference_mode()
def detect(
    model: BoxModel,
    manifest: Manifest,
    scale: tuple[int, int],
    *,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> list[Result]:
    """Detections of every image of a split at one test scale (see ``ViewsConfig``), not flipped."""
    model.to_inference(device)
    category_ids = [category.category_id for category in manifest.categories]
    batches = list(_batches(manifest.images, batch_size))
    results: list[Result] = []
    for records in progress(batches, len(batches)):
        found = _detect_batch(model, manifest, records, scale)
        for record, detections in zip(records, found, strict=True):
            results.extend(to_results(record.image_id, detections, category_ids))
    return results


def _batches(records: Sequence[ImageRecord], batch_size: int) -> Iterator[list[ImageRecord]]:
    """Runs of images of equal size, so that what a batch pads never changes a detection."""
    ordered = sorted(records, key=lambda record: (record.height, record.width, record.image_id))
    run: list[ImageRecord] = []
    for record in ordered:
        if run and (len(run) == batch_size or (run[0].height, run[0].width) != (record.height, record.width)):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _detect_batch(
    model: BoxModel, manifest: Manifest, records: list[ImageRecord], scale: tuple[int, int]
) -> list[Detections]:
    preprocessing = model.spec.conventions.preprocessing
    geometries = [view_at(record, scale, preprocessing.fit) for record in records]
    pixels = [
        apply_view(read_image(*manifest.image_file(record)), geometry, preprocessing)
        for record, geometry in zip(records, geometries, strict=True)
    ]
    images = batch_images(pixels, [geometry.padded_hw for geometry in geometries], preprocessing)
    return decode_views(model(images.to(model.device)), model.spec, geometries)


def decode_views(raw: RawOutputs, spec: ModelSpec, geometries: Sequence[ViewGeometry]) -> list[Detections]:
    """Detections in px of the original images, from a model's outputs for their views."""
    return postprocess(
        raw,
        spec.pyramid,
        [geometry.content_hw for geometry in geometries],
        torch.from_numpy(np.stack([scale_factors(geometry) for geometry in geometries])),
        corners_xy=torch.tensor([geometry.content_top_left[::-1] for geometry in geometries]),
        suppression=spec.suppression,
    )


def view_at(record: ImageRecord, scale: tuple[int, int], fit: ResizeMode) -> ViewGeometry:
    """The view of an image at a test scale."""
    views = ViewsConfig(scales=(scale,), flips=(False,))
    return views.geometry((record.height, record.width), record.image_id, 0, fit)


def to_results(image_id: int, detections: Detections, category_ids: list[int]) -> Iterator[Result]:
    """Detections of one image in COCO's result format."""
    columns = (detections.boxes_xyxy.tolist(), detections.scores.tolist(), detections.labels.tolist())
    for (x1, y1, x2, y2), score, label in zip(*columns, strict=True):
        yield {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [round(value, BOX_DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, SCORE_DECIMALS),
        }


def write_results(results: list[Result], path: Path) -> None:
    """Write detections as COCO's result file."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(results) + "\n")


def read_results(path: Path) -> list[Result]:
    """Read a COCO result file.

    Raises:
        DatasetError: It is missing or damaged.
    """
    try:
        results: list[Result] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{path}: expected COCO results, but they cannot be read ({error}); run `dvc repro`"
        ) from error
    return results
