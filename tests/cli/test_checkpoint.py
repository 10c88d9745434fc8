"""Checkpoints of the reference: recognized, mapped key by key; refused if they misfit or would run code."""

import os
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
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.views.conventions import GFL_PREPROCESSING, Conventions

RESNET = replace(DETECTOR, backbone="resnet18", channels=32, norm_groups=32)
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


def plain(state: State) -> object:
    return state


def of_mmdetection_2(state: State) -> object:
    return {"meta": {"epoch": 2, "CLASSES": NAMES}, "state_dict": OrderedDict(state), "optimizer": {}}


def of_mmdetection_3(state: State) -> object:
    return {
        "meta": {"dataset_meta": {"CLASSES": NAMES}, "cfg": "norm_cfg=dict(type='GN', num_groups=8)"},
        "state_dict": state,
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
    }


def in_parallel(state: State) -> object:
    return {f"module.{key}": value for key, value in state.items()}


def averaged(state: State) -> object:
    return state | {"ema_" + key.replace(".", "_"): value + 1 for key, value in state.items()}


@pytest.mark.parametrize("write", [plain, of_mmdetection_2, of_mmdetection_3, in_parallel, averaged])
def test_a_checkpoint_is_recognized_and_loads_strictly(
    path: Path, state: State, write: Callable[[State], object], caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(write(state), path)
    loaded, facts = load_checkpoint(path)
    assert is_equal(loaded, state)
    is_configured = write is of_mmdetection_3
    assert loaded.config == (replace(RESNET, norm_groups=8) if is_configured else RESNET)
    assert ("norm_groups: 32 is a guess" in caplog.text) != is_configured
    assert facts == ({"class_names": list(NAMES)} if "mmdetection" in write.__name__ else {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        replace(RESNET, backbone="resnet50", levels=5, num_classes=80),
        replace(RESNET, backbone="resnet50", dcn_stages=(3, 4, 5)),
        replace(RESNET, backbone="resnet50", dcn_stages=(4, 5), dcn_modulated=True),
        replace(RESNET, backbone="resnet34", reg_max=7, stacked_convs=4),
        replace(RESNET, norm_groups=16),
        DETECTOR,
    ],
)
def test_every_architecture_comes_back_from_its_own_export(path: Path, config: DetectorConfig) -> None:
    pixels = replace(GFL_PREPROCESSING, color="BGR", std=(255.0, 255.0, 255.0))
    model = GFL(config, Conventions(preprocessing=pixels, cell_offset=0.5))
    save_checkpoint(model, path, {"epoch": 1})
    again, _ = load_checkpoint(path)
    assert (again.config, again.conventions) == (config, model.conventions)
    assert is_equal(again, model.state_dict())


def with_bias(spoil: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[State], object]:
    return lambda state: state | {BIAS: spoil(state[BIAS])}


def without(key: str) -> Callable[[State], object]:
    return lambda state: {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("bbox_head.reg_convs.0.gn.bias"), "'bbox_head.reg_convs.0.gn.bias' is missing"),
        (
            without("bbox_head.gfl_reg.bias"),
            r"expected a GFL .*of none \('bbox_head.gfl_reg.bias'\)",
        ),
        (without("backbone.layer3.1.conv1.weight"), r"stages of \(2, 2, 1, 2\) blocks"),
        (lambda state: state | {"extra": torch.zeros(2)}, "'extra' is left over"),
        (with_bias(lambda bias: bias * torch.nan), f"'{BIAS}' .*has values that are not finite"),
        (with_bias(lambda bias: bias.to(torch.int8)), f"'{BIAS}' is of torch.int8, expected torch.float32"),
        (with_bias(lambda bias: bias.to(torch.complex64)), f"'{BIAS}' is of torch.complex64"),
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


def test_missing_and_broken_files_are_named(path: Path) -> None:
    with pytest.raises(TeacherError, match=r"gfl\.pth: expected a checkpoint .*No such file"):
        load_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(TeacherError, match=r"gfl\.pth: expected a checkpoint"):
        load_checkpoint(path)


class Malicious:
    """Calls something if it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def test_code_in_a_file_is_not_run(path: Path, state: State) -> None:
    """What looks like an object of another program is skipped; what reaches the system is refused."""
    target = path.with_name("ran")
    torch.save({"state_dict": state, "meta": {"CLASSES": Malicious(subprocess.run, ["touch", target])}}, path)
    assert load_checkpoint(path)[1] == {}
    torch.save({"state_dict": state, "meta": Malicious(os.system, f"touch {target}")}, path)
    with pytest.raises(TeacherError, match=r"gfl\.pth: expected a checkpoint of tensors and plain"):
        load_checkpoint(path)
    assert not target.exists()
