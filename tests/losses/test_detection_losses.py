from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.losses import detection
from pipeline.losses.detection import quality_focal_loss, sparse_quality_focal_loss


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
