"""Mixed precision: the network computes with fewer bits, weights and losses do not."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR
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


def stepper(losses: Distill, precision: str) -> tuple[GFL, TrainStep]:
    torch.manual_seed(0)
    model = GFL(DETECTOR)
    model.train()
    return model, TrainStep(model, losses, replace(TRAIN, precision=precision), HERE)


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
