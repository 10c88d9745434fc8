"""A network that is compiled: one graph, with which a training goes the same way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR
from torch import nn
from training_cases import FULL, student, taught

from pipeline.detector.gfl import GFL


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_a_network_is_one_graph(backbone: Any) -> None:
    explained = torch._dynamo.explain(GFL(replace(DETECTOR, backbone=backbone)))(torch.rand(2, 3, 64, 96))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


@pytest.mark.slow
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
