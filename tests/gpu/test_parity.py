"""The recorded numbers of the reference (float32, on a CPU), held against what a GPU computes.

Every test records its error as a property, whatever it allows: ``--junitxml`` keeps them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_data import (
    FOLDER,
    STRIDES,
    cases,
    dense_labels,
    labeled_views,
    load,
    lossless_targets,
    raw_outputs,
    targets_of,
    weights_salt,
)
from golden_losses import TERMS, box_loss_of, level_terms
from golden_models import recipe_detector, state_entries
from golden_step import Step, run_step
from torch import Tensor

from pipeline.detector.device import autocast

FORWARD_ERROR = {"exact": 1e-4, "float32": 5e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Norm of the difference of all logits over their norm. ``exact`` is without TF32, which keeps 10 bits."""

LOSS_TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
"""Five times the CPU's: sums of another order."""
GRADIENT_TOLERANCE = {"rtol": 1e-3, "atol": 1e-5}

STEP_LOSS_ERROR = {"exact": 1e-4, "float32": 1e-2, "bfloat16": 5e-2, "float16": 1e-2}
"""Relative, of each term."""
STEP_GRADIENT_ERROR = {"exact": 2e-2, "float32": 1e-1, "bfloat16": 4e-1, "float16": 1e-1}
"""Norm of the difference over the norm, all recorded samples together: ReLU inputs next to zero change sign
between kernels, which moves single gradients by a hundredth in float32, and more in fewer bits."""

Record = Callable[[str, object], None]


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """Norm of the difference over the norm, all tensors together."""
    a, b = (torch.cat([t.detach().cpu().double().flatten() for t in ts]) for ts in (found, expected))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("architecture", ["gfl_r18", "gfl_r50", "gfl_r101_dcn_c3c5"])
def test_forward_pass(
    architecture: str, mode: str, precision: str, device: torch.device, record_property: Record
) -> None:
    if device.type == "cpu" and "dcn" in architecture and precision != "float32":
        pytest.skip("torchvision's deformable convolution has no mixed precision on the CPU")
    classes = state_entries(architecture)["bbox_head.gfl_cls.bias"][0][0]
    model = recipe_detector(architecture, weights_salt(), classes)
    model.to(device, memory_format=torch.channels_last)
    recorded = load(FOLDER / "model" / f"out_{architecture}.npz")
    images = load(FOLDER / "model" / "images.npz")["img1"].to(device, memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(precision, device):
        levels = model.bbox_head(model.neck(model.backbone(images)))
    found = [part.float() for level in levels for part in level]
    expected = [recorded[f"img1_{kind}{i}"] for i in range(len(STRIDES)) for kind in ("cls", "reg")]
    error = relative_error(found, expected)
    record_property("relative_error", error)
    assert error <= FORWARD_ERROR[mode]


@pytest.mark.parametrize("path", cases("assign/*.npz"))
def test_targets_lie_where_the_reference_has_them(path: Path, device: torch.device) -> None:
    """Scattered on the device by the indices that a step reads; ignore boxes are not part of a plan."""
    data = load(path)
    if "ignore_iof_thr" in data and float(data["ignore_iof_thr"]) > 0:
        pytest.skip("made with an option that the pipeline does not have")
    targets = targets_of(data).to(device)
    with device:
        found = dense_labels(targets, background=80).cpu()
    where = data["fragile"] == 0 if "fragile" in data else torch.ones_like(found, dtype=torch.bool)
    assert torch.equal(targets.valid.cpu(), data["valid"].bool())
    assert torch.equal(found[where], data["labels"][where])


@pytest.mark.parametrize("path", cases("loss/*.npz"))
def test_losses_and_their_gradients(path: Path, device: torch.device) -> None:
    data = load(path)
    soft = lossless_targets(raw_outputs(data, "tea_cls", "tea_reg"), labeled_views(data)).to(device)
    names = [f"{kind}{level}" for kind in ("cls", "reg") for level in range(len(STRIDES))]
    leaves = {name: data[f"stu_{name}"].to(device).requires_grad_() for name in names}
    student = raw_outputs({f"stu_{name}": leaf for name, leaf in leaves.items()}, "stu_cls", "stu_reg")
    with device:
        levels = level_terms(student, targets_of(data).to(device), soft, box_loss_of(data))
    for term in TERMS:
        torch.testing.assert_close(levels.terms[term].detach().cpu(), data[term], **LOSS_TOLERANCE)
    levels.total.backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad.cpu(), data[f"grad_{name}"], **GRADIENT_TOLERANCE)


def test_training_step(mode: str, precision: str, device: torch.device, record_property: Record) -> None:
    step = run_step(device, precision)
    terms = step.levels.terms
    losses = max(relative_error([terms[term].sum()], [step.data[term].sum()]) for term in TERMS)
    gradients = relative_error(*_gradient_samples(step))
    record_property("loss_error", losses)
    record_property("gradient_error", gradients)
    assert losses <= STEP_LOSS_ERROR[mode]
    assert gradients <= STEP_GRADIENT_ERROR[mode]
    assert all(parameter.isfinite().all() for parameter in step.student.parameters())


def _gradient_samples(step: Step) -> tuple[list[Tensor], list[Tensor]]:
    """Of each recorded parameter, divided by the recorded one's largest value: none outweighs the others."""
    parameters, found, expected = dict(step.student.named_parameters()), [], []
    for index, name in enumerate(step.description["sample_keys"]):
        recorded = step.data[f"grad_sample_{index}"]
        largest = recorded.abs().max().clamp(min=1e-12)
        found.append(parameters[name].grad.flatten()[: len(recorded)].cpu() / largest)
        expected.append(recorded / largest)
    return found, expected
