"""Main region, valuable region and their targets, in batches of differently padded images.

Every anchor and box of the set first goes through the dense form (``dense_regions``), which has the ignore
boxes too; then what the pipeline computes is held against that form to the last bit, and against the set.
Integers are equal outside the cells that the set marks ``fragile`` (their decision depends on rounding or
on the order of exact ties); IoUs agree to 1e-6.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_regions import IGNORED, DenseAssignment, assign_densely, dense_regions, weigh_densely
from golden_data import (
    PYRAMID,
    Arrays,
    anchors_of,
    boxes_of,
    cases,
    dense_labels,
    dense_valuable_weights,
    image_count,
    in_batch,
    labels_of,
    load,
    size_of,
    targets_of,
)
from torch import Tensor

from pipeline.regions.atss import NEGATIVE
from pipeline.regions.config import RegionsConfig, Vlr
from pipeline.regions.valuable import find_regions
from pipeline.training.criterion import LossNormalizers, MainPoints

IOU_TOLERANCE = 1e-6
BACKGROUND = 80
RECORDED = {NEGATIVE: 0, IGNORED: -1}
"""``assigned_gt`` of the reference for our ``gt_index``; positives are counted from 1 there."""
INVALID = -2

every_case = pytest.mark.parametrize("path", cases("assign/*.npz"))


@cache
def recorded(path: Path) -> Arrays:
    return load(path)


def is_ignoring(data: Arrays) -> bool:
    """The case was made with the non-default option that ignore boxes take effect."""
    return "ignore_iof_thr" in data and float(data["ignore_iof_thr"]) > 0


@cache
def assignments(path: Path) -> list[DenseAssignment]:
    """Of every image, on its own grid."""
    data = recorded(path)
    return [
        assign_densely(
            *anchors_of(size_of(data["pad_hw"][image])),
            boxes_of(data, image),
            ignored_boxes_xyxy=data.get(f"gt_ignore_{image}"),
            ignored_iof_threshold=float(data["ignore_iof_thr"]) if is_ignoring(data) else -1.0,
        )
        for image in range(image_count(data))
    ]


def batched(data: Arrays, per_image: list[Tensor], outside: float) -> Tensor:
    return torch.stack([in_batch(data, image, values, outside) for image, values in enumerate(per_image)])


def robust(data: Arrays) -> Tensor:
    """``BoolTensor[B, N]``: cells that are compared."""
    fragile = data.get("fragile")
    return torch.ones_like(data["valid"]).bool() if fragile is None else fragile == 0


def assert_equal_at(where: Tensor, found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found[where], expected[where]), f"{(found != expected)[where].sum()} cells differ"


@every_case
def test_grid(path: Path) -> None:
    data = recorded(path)
    grid = PYRAMID.grid(size_of(data["batch_hw"]))
    assert grid.sizes == tuple(tuple(size) for size in data["feat_hw"].tolist())
    if "num_level_anchors" in data:
        assert grid.lengths == data["num_level_anchors"].tolist()


@every_case
def test_assigned_boxes_and_label_weights(path: Path) -> None:
    data = recorded(path)
    found = []
    for assignment in assignments(path):
        index = assignment.gt_index
        background = torch.where(index == IGNORED, RECORDED[IGNORED], RECORDED[NEGATIVE])
        found.append(torch.where(index >= 0, index + 1, background))
    assigned = batched(data, found, INVALID)
    assert_equal_at(robust(data), assigned, data["assigned_gt"])
    assert_equal_at(robust(data), (assigned >= 0).float(), data["label_weights"])
    for image in range(image_count(data)):
        if f"pos_inds_{image}" in data:
            positive = torch.zeros_like(assigned[image], dtype=torch.bool)
            positive[data[f"pos_inds_{image}"]] = True
            assert_equal_at(robust(data)[image], assigned[image] > 0, positive)


@every_case
def test_labels_and_box_targets(path: Path) -> None:
    data = recorded(path)
    labels, boxes = [], []
    for image, assignment in enumerate(assignments(path)):
        positive, index = assignment.gt_index >= 0, assignment.gt_index.clamp(min=0)
        # One more row, so that images without boxes can be indexed too.
        all_labels = torch.cat([labels_of(data, image), torch.tensor([BACKGROUND])])
        all_boxes = torch.cat([boxes_of(data, image), torch.zeros(1, 4)])
        labels.append(torch.where(positive, all_labels[index], BACKGROUND))
        boxes.append(torch.where(positive[:, None], all_boxes[index], 0.0))
    assert_equal_at(robust(data), batched(data, labels, BACKGROUND), data["labels"])
    assert_equal_at(robust(data), batched(data, boxes, 0), data["bbox_targets"])
    weights = (data["labels"] < BACKGROUND).float()[..., None].expand(-1, -1, 4)
    assert torch.equal(weights, data["bbox_weights"])


@pytest.mark.parametrize("path", cases("assign/*.npz", holding="assigned_iou"))
def test_assigned_iou(path: Path) -> None:
    data = recorded(path)
    found = batched(data, [assignment.iou for assignment in assignments(path)], 0)
    where = robust(data)
    torch.testing.assert_close(found[where], data["assigned_iou"][where], rtol=0, atol=IOU_TOLERANCE)


@every_case
def test_counts(path: Path) -> None:
    data = recorded(path)
    positives = sum(max(1, int((found.gt_index >= 0).sum())) for found in assignments(path))
    negatives = sum(max(1, int((found.gt_index == NEGATIVE).sum())) for found in assignments(path))
    fragile = int((~robust(data)).sum())
    assert abs(positives - int(data["num_total_pos"])) <= fragile
    assert abs(negatives - int(data["num_total_neg"])) <= fragile


@every_case
def test_valuable_weights(path: Path) -> None:
    data = recorded(path)
    found = []
    for image, assignment in enumerate(assignments(path)):
        anchors, _ = anchors_of(size_of(data["pad_hw"][image]))
        weights = weigh_densely(anchors, boxes_of(data, image), assignment.thresholds, RegionsConfig())
        found.append(weights)
    # The reference crashes for images without boxes, so nothing is recorded for them (note N1).
    expected = data.get("vlr", torch.zeros_like(data["label_weights"]))
    assert_valuable(batched(data, found, 0), expected, robust(data))


def assert_valuable(found: Tensor, expected: Tensor, where: Tensor) -> None:
    assert_equal_at(where, found > 0, expected > 0)
    torch.testing.assert_close(found[where], expected[where], rtol=0, atol=IOU_TOLERANCE)


@every_case
@pytest.mark.parametrize("vlr", ["released", "paper"])
def test_what_the_pipeline_computes_is_the_dense_form_to_the_last_bit(path: Path, vlr: Vlr) -> None:
    data = recorded(path)
    for image in range(image_count(data)):
        grid, boxes = PYRAMID.grid(size_of(data["pad_hw"][image])), boxes_of(data, image)
        regions = RegionsConfig(vlr=vlr)
        (found,), expected = find_regions(grid, [boxes], regions), dense_regions(grid, boxes, regions)
        assert vars(found).keys() == vars(expected).keys()
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values, name)


@every_case
def test_targets_of_a_batch(path: Path) -> None:
    """What is found view by view, kept as points and placed in the batch is what the reference computes."""
    data = recorded(path)
    targets = targets_of(data)
    assert torch.equal(targets.valid, data["valid"].bool())
    if is_ignoring(data):
        return  # views have no ignore boxes, as the reference's default; the option is tested above.
    where = robust(data)
    assert_equal_at(where, dense_labels(targets, BACKGROUND), data["labels"])
    boxes = torch.zeros_like(data["bbox_targets"])
    boxes[targets.image[targets.main], targets.index[targets.main]] = targets.boxes_xyxy
    assert_equal_at(where, boxes, data["bbox_targets"])
    expected = data.get("vlr", torch.zeros_like(data["label_weights"]))
    assert_valuable(dense_valuable_weights(targets), expected, where)
    counted = LossNormalizers.from_batch(targets, main_points_of(len(targets.labels)))
    assert abs(counted.positives - data["num_total_pos"]) <= (~where).sum()
    assert counted.images == image_count(data)


def main_points_of(points: int) -> MainPoints:
    return MainPoints(
        edge_logits=torch.zeros(points, 4, 17), cls_logits=torch.zeros(points, 1), score=torch.zeros(points)
    )
