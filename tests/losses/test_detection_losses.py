import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses import detection
from pipeline.losses.detection import (
    aligned_iou,
    ciou_loss,
    diou_loss,
    distribution_focal_loss,
    giou_loss,
    quality_focal_loss,
    sparse_quality_focal_loss,
)

UNIT = [0.0, 0.0, 1.0, 1.0]
SQUARE = [0.0, 0.0, 2.0, 2.0]
BOX_LOSSES = [giou_loss, diou_loss, ciou_loss]


def of_pair(loss: Callable[[Tensor, Tensor], Tensor], first: list[float], second: list[float]) -> float:
    return loss(torch.tensor([first]), torch.tensor([second])).item()


@pytest.mark.parametrize(
    ("quality", "expected"),
    [
        pytest.param(0.0, 0.25 * math.log(2), id="0.5^2 * log 2"),
        pytest.param(1.0, 0.25 * math.log(2), id="the same from the other side"),
        pytest.param(0.5, 0.0, id="the score is the quality: no loss, though cross entropy has some"),
    ],
)
def test_quality_focal_loss_of_an_even_score(quality: float, expected: float) -> None:
    """A logit of 0 is a score of 1/2, with cross entropy log 2 to any target."""
    found = quality_focal_loss(torch.zeros(1, 1), torch.tensor([[quality]]))
    assert found.item() == pytest.approx(expected)


def test_quality_focal_loss_sums_over_the_classes() -> None:
    """log 3 is a score of 3/4: (3/4)^2 * log 4 to quality 0, (1/4)^2 * log 4/3 to quality 1."""
    logits = torch.full((1, 2), math.log(3))
    found = quality_focal_loss(logits, torch.tensor([[0.0, 1.0]]))
    assert found.item() == pytest.approx(9 / 16 * math.log(4) + 1 / 16 * math.log(4 / 3))


class LargeTensors(TorchDispatchMode):
    """Lists what makes new tensors of ``size`` entries or more."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.made = size, list[str]()

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, Tensor)
            and result.numel() >= self.size
            and not (func.is_view or func is torch.ops.aten.detach.default)
        ):
            self.made.append(str(func))
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quality_focal_loss_in_parts_is_the_whole_to_the_bit_and_makes_its_gradient_alone_of_that_size(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    generator, shape = torch.Generator().manual_seed(0), (3, 99, 5)
    values = (4 * torch.randn(shape, generator=generator)).to(dtype)
    entry, quality = torch.randperm(1485, generator=generator)[:40], torch.rand(40, generator=generator)
    goal = torch.zeros(1485).index_put((entry,), quality).view(shape)
    whole, logits = values.clone().requires_grad_(), values.clone().requires_grad_()
    expected, above = quality_focal_loss(whole.float(), goal), torch.rand(shape[:2], generator=generator)
    expected.backward(above)
    monkeypatch.setattr(detection, "PART_ENTRIES", 700)
    with LargeTensors(1485) as large:
        found = sparse_quality_focal_loss(logits, entry, quality)
        found.backward(above)
    assert torch.equal(found, expected)
    assert torch.equal(logits.grad, whole.grad)
    assert large.made == ["aten.empty_like.default"]


@pytest.mark.parametrize("distance", [0.0, 3.25, 15.9])
def test_distribution_focal_loss_of_a_uniform_distribution(distance: float) -> None:
    """Every bin has 1/17, so the two neighbors share log 17 whatever their shares."""
    found = distribution_focal_loss(torch.zeros(1, 17), torch.tensor([distance]))
    assert found.item() == pytest.approx(math.log(17))


def test_distribution_focal_loss_shares_the_target_linearly() -> None:
    """Bins with 1/2, 1/4, 1/4; a distance of 1.25 is 3/4 in bin 1 and 1/4 in bin 2."""
    logits = torch.tensor([[math.log(2), 0.0, 0.0]])
    found = distribution_focal_loss(logits, torch.tensor([0.25]))
    assert found.item() == pytest.approx(0.75 * math.log(2) + 0.25 * math.log(4))
    found = distribution_focal_loss(logits, torch.tensor([1.25]))
    assert found.item() == pytest.approx(math.log(4))


def test_distribution_focal_loss_keeps_leading_dimensions() -> None:
    found = distribution_focal_loss(torch.zeros(3, 4, 17), torch.full((3, 4), 2.5))
    assert found.shape == (3, 4)


def test_overlapping_boxes_side_by_side() -> None:
    """Squares of side 2, one px apart: intersection 2, union 6, enclosing 3 x 2, centers 1 px apart."""
    shifted = [1.0, 0.0, 3.0, 2.0]
    assert of_pair(aligned_iou, SQUARE, shifted) == pytest.approx(1 / 3)
    assert of_pair(giou_loss, SQUARE, shifted) == pytest.approx(1 - 1 / 3)
    assert of_pair(diou_loss, SQUARE, shifted) == pytest.approx(1 - 1 / 3 + 1 / 13)
    # The aspect is the same.
    assert of_pair(ciou_loss, SQUARE, shifted) == pytest.approx(1 - 1 / 3 + 1 / 13)


def test_disjoint_boxes() -> None:
    """Unit squares with a gap of 1: union 2, enclosing 3 x 1, centers 2 px apart, diagonal^2 = 10."""
    apart = [2.0, 0.0, 3.0, 1.0]
    assert of_pair(aligned_iou, UNIT, apart) == 0
    assert of_pair(giou_loss, UNIT, apart) == pytest.approx(1 + 1 / 3)
    assert of_pair(diou_loss, UNIT, apart) == pytest.approx(1 + 4 / 10)


def test_ciou_adds_the_aspect() -> None:
    """A square in the left half of a 4 x 2 box: IoU 1/2, centers 1 px apart, diagonal^2 = 20.

    v = 4 / pi^2 * (atan 2 - atan 1)^2 = 0.041957, and the aspect term v^2 / (1/2 + v) = 0.003248.
    """
    wide = [0.0, 0.0, 4.0, 2.0]
    assert of_pair(diou_loss, SQUARE, wide) == pytest.approx(0.55)
    assert of_pair(ciou_loss, SQUARE, wide) == pytest.approx(0.553248, abs=1e-6)


@pytest.mark.parametrize("loss", BOX_LOSSES)
def test_equal_boxes_have_no_loss_and_a_finite_gradient(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    boxes = torch.tensor([SQUARE, [3.0, 4.0, 10.0, 5.5]])
    predicted = boxes.clone().requires_grad_()
    found = loss(predicted, boxes)
    found.sum().backward()
    assert found.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert predicted.grad.isfinite().all()


def test_no_points() -> None:
    none = torch.zeros(0, 4)
    assert all(loss(none, none).shape == (0,) for loss in [aligned_iou, *BOX_LOSSES])
    assert quality_focal_loss(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert distribution_focal_loss(torch.zeros(0, 4, 17), none).shape == (0, 4)


@pytest.mark.parametrize("zeros", [0, 3])
def test_areas_and_their_gradients_have_the_bits_of_torchs_product(zeros: int) -> None:
    sides = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) * 9
    sides[:zeros, 0] = 0
    weights = torch.rand(1000)
    found, expected = (sides.clone().requires_grad_() for _ in range(2))
    detection._area(found).backward(weights)
    expected.prod(dim=-1).backward(weights)
    assert torch.equal(detection._area(sides), sides.prod(dim=-1))
    assert torch.equal(found.grad, expected.grad)
