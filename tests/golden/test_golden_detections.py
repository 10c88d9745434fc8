"""Detections of recorded head outputs."""

from pathlib import Path

import pytest
import torch
from golden_data import PYRAMID, STRIDES, cases, load, raw_outputs, size_of

from pipeline.detector.config import GFL_SUPPRESSION
from pipeline.detector.model import ModelSpec
from pipeline.evaluation.detect import best_positions, decode_views
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewGeometry

BOX_TOLERANCE = {"rtol": 1e-6, "atol": 1e-4}
SCORE_TOLERANCE = {"rtol": 0, "atol": 1e-6}

SPEC = ModelSpec(name="GFL", strides=STRIDES, bins=17, num_classes=80, conventions=GFL_CONVENTIONS)


@pytest.mark.parametrize("path", cases("post/*.npz"))
def test_candidates_and_detections(path: Path) -> None:
    data = load(path)
    raw, scale = raw_outputs(data, "cls", "reg"), data["scale_factor"]
    sizes = [size_of(hw) for hw in data["img_hw"]]
    for name, factors in (("rescaled", scale), ("network", torch.ones_like(scale))):
        views = []
        for (height, width), (horizontal, vertical, *_) in zip(sizes, factors.tolist(), strict=True):
            original, size = (round(height / vertical), round(width / horizontal)), (height, width)
            padded = -(-height // 32) * 32, -(-width // 32) * 32
            views.append(ViewGeometry(original_hw=original, resized_hw=size, padded_hw=padded, flip=False))
        for image, detections in enumerate(decode_views(raw, SPEC, views)):
            expected = data[f"dets_{name}_{image}"]
            assert torch.equal(detections.labels, data[f"labels_{image}"])
            torch.testing.assert_close(detections.boxes_xyxy, expected[:, :4], **BOX_TOLERANCE)
            torch.testing.assert_close(detections.scores, expected[:, 4], **SCORE_TOLERANCE)
        assert image + 1 == len(sizes)
    for image, logits in enumerate(raw.cls_logits):
        scores = logits.sigmoid()
        kept = best_positions(scores, PYRAMID.grid_of(raw.sizes).lengths, GFL_SUPPRESSION.pre_nms_top)
        assert len(kept) == data[f"num_boxes_after_pre_topk_{image}"]
        assert (scores[kept] > GFL_SUPPRESSION.score_threshold).sum() == data[f"num_candidates_{image}"]
