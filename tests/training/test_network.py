"""A network of fewer bits, or compiled: its training goes nearly the same way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR
from torch import nn
from torch.nn.utils import parameters_to_vector
from training_cases import FULL, HERE, TRAIN, loader_of, relative_difference, student, taught

from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs
from pipeline.student.train import student_losses
from pipeline.training.dataset import StepBatches
from pipeline.training.step import Distill, TrainStep

pytestmark = pytest.mark.slow

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("precision", DTYPES)
def test_a_student_of_fewer_bits_is_nearly_the_same(precision: str, stores: Path) -> None:
    exact, rough = (
        taught(student(FULL, epochs=3, precision=each), stores) for each in ("float32", precision)
    )
    assert 0 < relative_difference(rough.model, exact.model) < 1e-2
    assert {value.dtype for value in rough.model.parameters()} == {torch.float32}
    for row, other in zip(rough.curve.values(), exact.curve.values(), strict=True):
        assert row == pytest.approx(other, rel=0.05, abs=0.01)


@pytest.fixture(scope="module")
def batches(stores: Path) -> StepBatches:
    return next(loader_of(student(FULL), stores).epoch(0))


def stepper(losses: Distill, precision: str, **train: Any) -> tuple[GFL, TrainStep]:
    torch.manual_seed(0)
    model = GFL(DETECTOR)
    model.train()
    return model, TrainStep(model, losses, replace(TRAIN, precision=precision, **train), HERE)


@pytest.mark.parametrize("precision", DTYPES)
def test_the_network_has_fewer_bits_and_the_losses_have_all(precision: str, batches: StepBatches) -> None:
    model, step = stepper(student_losses(student(FULL)), precision)
    outputs: list[RawOutputs] = []
    model.register_forward_hook(lambda _model, _images, raw: outputs.append(raw))
    terms = step.step(batches, rate=0.0)
    assert {outputs[0].cls_logits.dtype, outputs[0].edge_logits.dtype} == {DTYPES[precision]}
    assert len(terms) == 6
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_a_float16_step_whose_gradients_overflow_is_left_out(batches: StepBatches) -> None:
    """The loss is finite, and so are its own gradients; multiplied by the scaler's factor they are not."""
    model, step = stepper(lambda raw, *_: {"loss": raw.cls_logits.float().sum()}, "float16")
    before = {name: value.clone() for name, value in model.named_parameters()}
    factor = step.scaler.get_scale()
    assert step.step(batches, rate=0.1)["loss"].isfinite()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert step.scaler.get_scale() == factor / 2


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_limited_by_their_norm_before_scaling(precision: str, batches: StepBatches) -> None:
    limits = {"max_grad_norm": 0.1, "weight_decay": 0.0}
    model, step = stepper(student_losses(student(FULL)), precision, **limits)
    before = parameters_to_vector(model.parameters()).detach()
    step.step(batches, rate=1.0)
    moved = parameters_to_vector(model.parameters()).detach() - before
    assert float(moved.norm()) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_a_network_is_one_graph(backbone: Any) -> None:
    explained = torch._dynamo.explain(GFL(replace(DETECTOR, backbone=backbone)))(torch.rand(2, 3, 64, 96))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_a_compiled_training_goes_the_same_way(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the operations as they are: other backends round otherwise."""
    compiled, compile_module = [], nn.Module.compile

    def record(self: nn.Module) -> None:
        compiled.append(self)
        compile_module(self, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", record)
    plain, other = (taught(student(FULL, compile=choice), stores).curve for choice in (False, True))
    assert len(compiled) == 1
    for row, same in zip(plain.values(), other.values(), strict=True):
        assert same == pytest.approx(row, rel=1e-4)
