"""Detections of a GPU and of the CPU."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from teacher_cases import small_manifest, small_teacher

from pipeline.evaluation.detect import detect

SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE_PX = 0.1
FOUND = 0.98
"""Share of the detections that both have: NMS decides by the order of scores that may be nearly equal."""


@pytest.mark.usefixtures("mode")
@pytest.mark.parametrize("mode", ["exact"], indirect=True)
def test_detections_are_those_of_the_cpu(
    tmp_path: Path, device: torch.device, record_property: Callable[[str, object], None]
) -> None:
    manifest = small_manifest(tmp_path, images=6)
    model: Any = small_teacher(manifest).model
    with torch.no_grad():
        # Sure of its classes, and of boxes of a few cells: so there is much to suppress, and much is left.
        model.bbox_head.gfl_cls.bias.fill_(0.0)
        model.bbox_head.gfl_reg.weight.div_(20)
        model.bbox_head.gfl_reg.bias.copy_(-0.7 * torch.arange(17.0).repeat(4))
    expected, found = (
        detect(model, manifest, (64, 64), batch_size=3, device=each) for each in (torch.device("cpu"), device)
    )
    assert len(expected) > 100
    matched = sum(any(_near(row, wanted) for row in found) for wanted in expected) / len(expected)
    record_property("matched", matched)
    record_property("counts", [len(expected), len(found)])
    assert matched >= FOUND
    assert abs(len(found) - len(expected)) <= (1 - FOUND) * len(expected)


def _near(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return (
        all(row[key] == wanted[key] for key in ("image_id", "category_id"))
        and abs(row["score"] - wanted["score"]) <= SCORE_TOLERANCE
        and all(abs(a - b) <= BOX_TOLERANCE_PX for a, b in zip(row["bbox"], wanted["bbox"], strict=True))
    )
