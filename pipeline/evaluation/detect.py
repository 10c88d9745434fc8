"""Run a detector over a split and collect detections in COCO's result format."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from pipeline.core.environment import core_count
from pipeline.core.prefetch import load_ahead, loading_pool
from pipeline.core.progress import show_progress
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.device import autocast
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel, ModelSpec
from pipeline.views.box_ops import decode_boxes, expected_distances
from pipeline.views.geometry import ResizeMode, ViewGeometry, ViewsConfig, scale_factors
from pipeline.views.images import normalize_images, read_views
from pipeline.views.manifest import ImageRecord, Manifest
from pipeline.views.pyramid import Size

Result = dict[str, Any]
"""``image_id``, ``category_id``, ``bbox`` (x, y, w, h in px of the original image), ``score``."""

MAX_DECODERS = 8

SCORE_DECIMALS, BOX_DECIMALS = 5, 2


@torch.inference_mode()
def detect(
    model: BoxModel,
    manifest: Manifest,
    scale: tuple[int, int],
    *,
    batch_size: int,
    device: torch.device,
    precision: NetworkPrecision = "float32",
    label: str | None = None,
) -> list[Result]:
    """Detections of every image of a split at one test scale (see ``ViewsConfig``), not flipped.

    The next batches are decoded meanwhile, for a GPU in processes; a ``label`` shows how far it is.
    """
    model.to_inference(device)
    category_ids = [category.category_id for category in manifest.categories]
    preprocessing = model.spec.conventions.preprocessing
    batches = list(_batches(manifest.images, scale, preprocessing.fit, batch_size))
    files = [[(manifest.image_file(record), view) for record, view in batch] for batch in batches]
    on_gpu = device.type == "cuda"
    decoders = max(1, min(MAX_DECODERS, core_count() - 1)) if on_gpu else 1
    results: list[Result] = []
    with loading_pool(decoders, partial(torch.set_num_threads, 1), processes=on_gpu) as pool:
        decoded = load_ahead(pool, partial(read_views, preprocessing=preprocessing), files, 2 * decoders)
        shown = show_progress(batches, len(batches), label) if label else batches
        for batch, pixels in zip(shown, decoded, strict=True):
            views = [view for _, view in batch]
            sizes = torch.tensor([view.resized_hw for view in views]).to(model.device)
            images = normalize_images(torch.from_numpy(pixels).to(model.device), sizes, preprocessing)
            with autocast(precision, model.device):
                raw = model(images)
            for (record, _), detections in zip(batch, decode_views(raw, model.spec, views), strict=True):
                results.extend(to_results(record.image_id, detections, category_ids))
    return results


def _batches(
    records: Iterable[ImageRecord], scale: tuple[int, int], fit: ResizeMode, batch_size: int
) -> Iterator[list[tuple[ImageRecord, ViewGeometry]]]:
    """Images of equal padded size, so that what a batch pads never changes a detection."""
    groups: dict[Size, list[tuple[ImageRecord, ViewGeometry]]] = {}
    for record in sorted(records, key=lambda record: (record.height, record.width, record.image_id)):
        view = view_at(record, scale, fit)
        groups.setdefault(view.padded_hw, []).append((record, view))
    for group in groups.values():
        yield from (group[start : start + batch_size] for start in range(0, len(group), batch_size))


class Detections(NamedTuple):
    """Detections of one image, by descending score: ``Tensor[D, 4]`` px, ``Tensor[D]``, ``LongTensor[D]``."""

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor


def decode_views(raw: RawOutputs, spec: ModelSpec, geometries: Sequence[ViewGeometry]) -> list[Detections]:
    """Detections in px of the original images, from a model's outputs for their views.

    Boxes are decoded, clipped to the image's content and rescaled; then come threshold and NMS, by class.
    """
    grid, device = spec.pyramid.grid_of(raw.sizes), raw.cls_logits.device
    points = torch.from_numpy(grid.points).to(device)
    strides = torch.from_numpy(grid.point_strides).to(device)
    corners = torch.tensor([view.content_top_left[::-1] for view in geometries]).to(points)
    factors = torch.from_numpy(np.stack([scale_factors(view) for view in geometries])).to(points)
    results, suppression = [], spec.suppression
    for index, view in enumerate(geometries):
        scores = raw.cls_logits[index].float().sigmoid()
        kept = best_positions(scores, grid.lengths, suppression.pre_nms_top)
        distances = expected_distances(raw.edge_logits[index, kept].float()) * strides[kept, None]
        boxes = decode_boxes(points[kept] - corners[index], distances)
        boxes, scores = clip_boxes_to_image(boxes, view.content_hw) / factors[index], scores[kept]
        position, labels = (scores > suppression.score_threshold).nonzero().unbind(dim=1)
        columns = boxes[position], scores[position, labels], labels
        best = batched_nms(*columns, suppression.iou)[: suppression.max_detections]
        results.append(Detections(*(column[best] for column in columns)))
    return results


def best_positions(scores: Tensor, lengths: list[int], count: int) -> Tensor:
    """Indices of the ``count`` best positions of every level."""
    kept, start = [], 0
    for best in torch.split(scores.amax(dim=1), lengths):
        top = best.topk(count).indices if len(best) > count else torch.arange(len(best), device=best.device)
        kept.append(top + start)
        start += len(best)
    return torch.cat(kept)


def view_at(record: ImageRecord, scale: tuple[int, int], fit: ResizeMode) -> ViewGeometry:
    """The view of an image at a test scale."""
    views = ViewsConfig(scales=(scale,), flips=(False,))
    return views.geometry((record.height, record.width), record.image_id, 0, fit)


def to_results(image_id: int, detections: Detections, category_ids: list[int]) -> Iterator[Result]:
    """Detections of one image in COCO's result format."""
    # One copy from the device: a label is a small whole number, which float32 holds.
    columns = (detections.boxes_xyxy, detections.scores[:, None], detections.labels[:, None].float())
    for x1, y1, x2, y2, score, label in torch.cat(columns, dim=1).tolist():
        yield {
            "image_id": image_id,
            "category_id": category_ids[int(label)],
            "bbox": [round(value, BOX_DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, SCORE_DECIMALS),
        }
