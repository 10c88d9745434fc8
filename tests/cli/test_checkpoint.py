"""Checkpoints of the reference: recognized, mapped key by key; refused if they misfit or would run code."""

import os
import pickle
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR

from pipeline.cli.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from pipeline.core.errors import TeacherError
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.views.conventions import GFL_PREPROCESSING, Conventions

RESNET = replace(DETECTOR, backbone="resnet18", channels=32, norm_groups=32)


def wrapped(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """As mmdetection 2 writes it."""
    return {
        "meta": {"epoch": 2, "CLASSES": tuple("abcd")},
        "state_dict": OrderedDict(state),
        "optimizer": {},
    }


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [wrapped, dict])
def test_a_checkpoint_is_recognized_and_loads_strictly(tmp_path: Path, prefix: str, wrap) -> None:
    model = GFL(RESNET)
    path = tmp_path / "gfl.pth"
    torch.save(wrap({prefix + key: value for key, value in model.state_dict().items()}), path)
    loaded, facts = load_checkpoint(path)
    assert loaded.config == RESNET
    assert facts == ({} if wrap is dict else {"class_names": list("abcd")})
    pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


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
def test_every_architecture_comes_back_from_its_own_export(tmp_path: Path, config: DetectorConfig) -> None:
    pixels = replace(GFL_PREPROCESSING, color="BGR", std=(255.0, 255.0, 255.0))
    model = GFL(config, Conventions(preprocessing=pixels, cell_offset=0.5))
    save_checkpoint(model, tmp_path / "out" / "gfl.pth", {"epoch": 1})
    again, _ = load_checkpoint(tmp_path / "out" / "gfl.pth")
    assert (again.config, again.conventions) == (config, model.conventions)
    pairs = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


BIAS = "bbox_head.gfl_cls.bias"


def with_bias(spoil: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda state: state.update({BIAS: spoil(state[BIAS])})


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda state: state.pop("bbox_head.reg_convs.0.gn.bias"),
            "'bbox_head.reg_convs.0.gn.bias' is missing",
        ),
        (lambda state: state.update(extra=torch.zeros(2)), "'extra' is left over"),
        (lambda state: state.pop("backbone.layer3.1.conv1.weight"), r"stages of \(2, 2, 1, 2\) blocks"),
        (lambda state: state.clear(), "expected a state dict of tensors"),
        (with_bias(lambda bias: bias * torch.nan), "or has values that are not finite"),
        (with_bias(lambda bias: bias.to(torch.int8)), f"'{BIAS}' is of torch.int8, expected torch.float32"),
        (with_bias(lambda bias: bias.to(torch.complex64)), f"'{BIAS}' is of torch.complex64"),
        (with_bias(lambda bias: bias.to_sparse()), f"'{BIAS}' is torch.sparse"),
        (with_bias(lambda bias: bias.to("meta")), f"'{BIAS}' is torch.strided on meta"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    state = dict(GFL(RESNET).state_dict())
    edit(state)
    torch.save(state, tmp_path / "gfl.pth")
    with pytest.raises(TeacherError, match=message):
        load_checkpoint(tmp_path / "gfl.pth")


class Malicious:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


class SystemCall(Malicious):
    """The same, through a module that torch refuses by its name."""

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


class Foreign(Malicious):
    """The same, as the state of an object of another program would look."""

    def __reduce__(self):
        return subprocess.run, (["touch", str(self.target)],)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path, target = tmp_path / "gfl.pth", tmp_path / "ran"
    state = GFL(RESNET).state_dict()
    torch.save({"state_dict": state, "meta": {"CLASSES": Foreign(target)}}, path)
    assert load_checkpoint(path)[1] == {}
    for harmful in (Malicious(target), SystemCall(target)):
        torch.save({"state_dict": state, "meta": harmful}, path)
        with pytest.raises(TeacherError, match=r"gfl\.pth: expected a checkpoint of tensors and plain"):
            read_checkpoint(path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    with pytest.raises(TeacherError):
        read_checkpoint(tmp_path / "raw.pth")
    assert not target.exists()


class HistoryBuffer:
    """As mmengine keeps the losses of a training."""

    def __init__(self) -> None:
        self.history = np.arange(3.0)
        self.statistics = {"mean": np.mean, "max": max}


def test_what_mmdetection_3_saves_is_read_and_its_objects_are_skipped(tmp_path: Path) -> None:
    names = ["cat", "dog", "bird", "owl"]
    content = {
        "meta": {"dataset_meta": {"CLASSES": tuple(names)}, "cfg": "norm_cfg=dict(type='GN', num_groups=8)"},
        "state_dict": GFL(RESNET).state_dict(),
        "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}},
    }
    torch.save(content, tmp_path / "gfl.pth")
    model, facts = load_checkpoint(tmp_path / "gfl.pth")
    assert (facts, model.config.norm_groups) == ({"class_names": names}, 8)


def test_of_averaged_and_raw_weights_the_plain_keys_are_taken(tmp_path: Path) -> None:
    state = GFL(RESNET).state_dict()
    raw = {"ema_" + key.replace(".", "_"): value + 1 for key, value in state.items()}
    torch.save({"meta": {}, "state_dict": {**state, **raw}}, tmp_path / "gfl.pth")
    model, _ = load_checkpoint(tmp_path / "gfl.pth")
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_guess_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(GFL(RESNET).state_dict(), tmp_path / "gfl.pth")
    load_checkpoint(tmp_path / "gfl.pth")
    assert "norm_groups: 32 is a guess" in caplog.text


def test_meta_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    torch.save({"meta": {"CLASSES": ("a",)}, "state_dict": GFL(RESNET).state_dict()}, tmp_path / "gfl.pth")
    with pytest.raises(TeacherError, match="expected 4 classes, but its meta names 1"):
        load_checkpoint(tmp_path / "gfl.pth")


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"none\.pth: expected a checkpoint, but there is none"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(TeacherError, match=r"text\.pth: expected a checkpoint"):
        read_checkpoint(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TeacherError, match="expected a state dict of tensors"):
        read_checkpoint(tmp_path / "list.pth")
