"""Run a detector over a split and collect detections in COCO's result format."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.images import apply_view, batch_images, read_image
from pipeline.data.manifest import ImageRecord, Manifest
from pipeline.data.views import ViewGeometry, ViewsConfig, enumerate_views, scale_factors
from pipeline.detector.gfl import GFL
from pipeline.detector.postprocess import Detections, postprocess
from pipeline.errors import DatasetError, TeacherError
from pipeline.output import replacing

Result = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` (x, y, w, h in px of the original image), ``score``."""

Progress = Callable[[Iterable[list[ImageRecord]], int], Iterable[list[ImageRecord]]]
"""Wraps the batches, given their number, to show how far it is."""

SCORE_DECIMALS = 5
BOX_DECIMALS = 2


@torch.inference_mode()
def detect(
    model: GFL,
    manifest: Manifest,
    scale: tuple[int, int],
    *,
    batch_size: int,
    device: torch.device,
    progress: Progress,
) -> list[Result]:
    """Detections of every image of a split at one test scale ``(long, short)``, not flipped.

    Raises:
        TeacherError: The detector is of another number of classes than the dataset.
        DatasetError: An image cannot be read.
    """
    model.eval()
    category_ids = [category.category_id for category in manifest.categories]
    if model.config.num_classes != len(category_ids):
        raise TeacherError(
            f"expected a detector of the dataset's {len(category_ids)} classes, "
            f"but it has {model.config.num_classes}; train it again"
        )
    batches = list(_batches(manifest.images, batch_size))
    results: list[Result] = []
    for records in progress(batches, len(batches)):
        found = _detect_batch(model, manifest, records, scale, device)
        for record, detections in zip(records, found, strict=True):
            results.extend(_to_results(record.image_id, detections, category_ids))
    return results


def _batches(records: tuple[ImageRecord, ...], batch_size: int) -> Iterator[list[ImageRecord]]:
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
    model: GFL, manifest: Manifest, records: list[ImageRecord], scale: tuple[int, int], device: torch.device
) -> list[Detections]:
    geometries = [view_at(record, scale) for record in records]
    pixels = [
        apply_view(read_image(manifest.image_path(record), geometry.original_hw), geometry)
        for record, geometry in zip(records, geometries, strict=True)
    ]
    images = batch_images(pixels, [geometry.padded_hw for geometry in geometries]).to(device)
    factors = torch.from_numpy(np.stack([scale_factors(geometry) for geometry in geometries]))
    return postprocess(model(images), model.config.strides, [g.resized_hw for g in geometries], factors)


def view_at(record: ImageRecord, scale: tuple[int, int]) -> ViewGeometry:
    """The view of an image at a test scale."""
    return enumerate_views((record.height, record.width), ViewsConfig(scales=(scale,), flips=(False,)))[0]


def _to_results(image_id: int, detections: Detections, category_ids: list[int]) -> Iterator[Result]:
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
    with replacing(path) as partial:
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
