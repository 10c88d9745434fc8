"""Detections of recorded head outputs."""

from functools import cache
from pathlib import Path

import pytest
import torch
from golden_data import PYRAMID, STRIDES, Arrays, cases, image_count, load, raw_outputs, size_of
from torch import Tensor

from pipeline.detector.config import GFL_SUPPRESSION
from pipeline.detector.model import ModelSpec
from pipeline.evaluation.detect import Detections, best_positions, decode_views
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewGeometry

BOX_TOLERANCE = {"rtol": 1e-6, "atol": 1e-4}
SCORE_TOLERANCE = {"rtol": 0, "atol": 1e-6}

every_case = pytest.mark.parametrize("path", cases("post/*.npz"))


@cache
def recorded(path: Path) -> Arrays:
    return load(path)


SPEC = ModelSpec(
    name="GFL",
    strides=STRIDES,
    bins=17,
    num_classes=80,
    conventions=GFL_CONVENTIONS,
    suppression=GFL_SUPPRESSION,
    input_hw=None,
)


def detect(data: Arrays, scale_factors: Tensor) -> list[Detections]:
    """Of images that were scaled by factors for x1, y1, x2, y2."""
    views = []
    for hw, (horizontal, vertical, *_) in zip(data["img_hw"], scale_factors.tolist(), strict=True):
        height, width = size_of(hw)
        original_hw = (round(height / vertical), round(width / horizontal))
        views.append(
            ViewGeometry(
                original_hw=original_hw, resized_hw=(height, width), padded_hw=(height, width), flip=False
            )
        )
    return decode_views(raw_outputs(data, "cls", "reg"), SPEC, views)


def assert_detections(data: Arrays, found: list[Detections], name: str) -> None:
    assert len(found) == image_count(data)
    for image, detections in enumerate(found):
        expected = data[f"{name}_{image}"]
        assert torch.equal(detections.labels, data[f"labels_{image}"])
        torch.testing.assert_close(detections.boxes_xyxy, expected[:, :4], **BOX_TOLERANCE)
        torch.testing.assert_close(detections.scores, expected[:, 4], **SCORE_TOLERANCE)


@every_case
def test_detections_in_original_pixels(path: Path) -> None:
    data = recorded(path)
    assert_detections(data, detect(data, data["scale_factor"]), "dets_rescaled")


@every_case
def test_detections_in_network_pixels(path: Path) -> None:
    data = recorded(path)
    assert_detections(data, detect(data, torch.ones_like(data["scale_factor"])), "dets_network")


@every_case
def test_candidates(path: Path) -> None:
    data = recorded(path)
    raw = raw_outputs(data, "cls", "reg")
    for image in range(image_count(data)):
        scores = raw.cls_logits[image].sigmoid()
        kept = best_positions(scores, PYRAMID.grid_of(raw.sizes).lengths, GFL_SUPPRESSION.pre_nms_top)
        assert len(kept) == data[f"num_boxes_after_pre_topk_{image}"]
        assert (scores[kept] > GFL_SUPPRESSION.score_threshold).sum() == data[f"num_candidates_{image}"]
