"""Checkpoints of the reference: recognized, mapped key by key; refused if they misfit or would run code."""

import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR

from pipeline.cli.checkpoint import load_checkpoint, save_checkpoint
from pipeline.core.errors import TeacherError
from pipeline.detector.gfl import GFL
from pipeline.views.conventions import GFL_PREPROCESSING, Conventions

RESNET = replace(
    DETECTOR,
    backbone="resnet18",
    dcn_stages=(4, 5),
    dcn_modulated=True,
    channels=32,
    norm_groups=32,
    reg_max=7,
)
NAMES = ("cat", "dog", "bird", "owl")
BIAS = "bbox_head.gfl_cls.bias"

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return dict(GFL(RESNET).state_dict())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gfl.pth"


def is_equal(model: GFL, state: State) -> bool:
    loaded = model.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)


class HistoryBuffer:
    """As mmengine keeps the losses of a training."""

    def __init__(self) -> None:
        self.history = np.arange(3.0)
        self.statistics = {"mean": np.mean, "max": max}


WAYS: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "mmdetection 2": lambda state: {
        "meta": {"epoch": 2, "CLASSES": NAMES},
        "state_dict": OrderedDict(state),
        "optimizer": {},
    },
    "mmdetection 3": lambda state: {
        "meta": {"dataset_meta": {"CLASSES": NAMES}, "cfg": "norm_cfg=dict(type='GN', num_groups=8)"},
        "state_dict": state,
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
    },
    "in parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "averaged": lambda state: state | {"ema_" + key.replace(".", "_"): state[key] + 1 for key in state},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_is_recognized_and_loads_strictly(
    path: Path, state: State, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(WAYS[way](state), path)
    loaded, facts = load_checkpoint(path)
    assert is_equal(loaded, state)
    is_configured = way == "mmdetection 3"
    assert loaded.config == (replace(RESNET, norm_groups=8) if is_configured else RESNET)
    assert ("norm_groups: 32 is a guess" in caplog.text) != is_configured
    assert facts == ({"class_names": list(NAMES)} if "mmdetection" in way else {})


def test_what_no_state_dict_shows_comes_back_from_an_export(path: Path) -> None:
    pixels = replace(GFL_PREPROCESSING, color="BGR", std=(255.0, 255.0, 255.0))
    model = GFL(DETECTOR, Conventions(preprocessing=pixels, cell_offset=0.5))
    save_checkpoint(model, path, {"epoch": 1})
    again, _ = load_checkpoint(path)
    assert (again.config, again.conventions) == (DETECTOR, model.conventions)
    assert is_equal(again, model.state_dict())


def with_bias(spoil: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], object]:
    return lambda state: state | {BIAS: spoil(state[BIAS])}


def without(key: str) -> Callable[[State], object]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("bbox_head.reg_convs.0.gn.bias"), "'bbox_head.reg_convs.0.gn.bias' is missing"),
        (without("bbox_head.gfl_reg.bias"), r"expected a GFL .*of none \('bbox_head.gfl_reg.bias'\)"),
        (without("backbone.layer3.1.conv1.weight"), r"stages of \(2, 2, 1, 2\) blocks"),
        (with_bias(lambda bias: bias.to(torch.int8)), f"'{BIAS}' is of torch.int8, expected torch.float32"),
        (with_bias(lambda bias: bias.to_sparse()), f"'{BIAS}' is .*sparse"),
        (with_bias(lambda bias: bias.to("meta")), f"'{BIAS}' is .*meta"),
        (lambda state: {"state_dict": state, "meta": {"CLASSES": ["a"]}}, "expected 4 classes, but"),
        (lambda _: {}, "expected a state dict of tensors"),
        (lambda _: [1, 2], "expected a state dict of tensors"),
    ],
)
def test_what_does_not_fit_is_named(
    path: Path, state: State, spoil: Callable[[State], object], message: str
) -> None:
    torch.save(spoil(state), path)
    with pytest.raises(TeacherError, match=message):
        load_checkpoint(path)


class Foreign:
    """Runs a command if it is unpickled; what reaches the system by itself, torch refuses."""

    def __reduce__(self) -> Any:
        return subprocess.run, (["touch", "ran"],)


def test_what_looks_like_an_object_of_another_program_is_skipped_and_not_run(
    path: Path, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    torch.save({"state_dict": state, "meta": {"CLASSES": Foreign()}}, path)
    assert load_checkpoint(path)[1] == {}
    assert not Path("ran").exists()
