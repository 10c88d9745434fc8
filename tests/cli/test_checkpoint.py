"""Checkpoints of the reference: recognized, mapped key by key; refused if they misfit or would run code."""

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR

from pipeline.cli.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from pipeline.core.errors import TeacherError
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL

RESNET = replace(DETECTOR, backbone="resnet18", channels=32, norm_groups=32)


def wrapped(state: dict[str, torch.Tensor]) -> dict[str, object]:
    """As mmdetection writes it."""
    return {"meta": {"epoch": 24, "CLASSES": ("a", "b")}, "state_dict": OrderedDict(state), "optimizer": {}}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrap", [wrapped, dict])
def test_a_checkpoint_is_recognized_and_loads_strictly(tmp_path: Path, prefix: str, wrap) -> None:
    model = GFL(RESNET)
    path = tmp_path / "gfl.pth"
    torch.save(wrap({prefix + key: value for key, value in model.state_dict().items()}), path)
    loaded = load_checkpoint(path)
    assert loaded.config == RESNET
    pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    "config",
    [
        replace(RESNET, backbone="resnet50", levels=5, num_classes=80),
        replace(RESNET, backbone="resnet50", dcn_stages=(3, 4, 5)),
        replace(RESNET, backbone="resnet50", dcn_stages=(4, 5), dcn_modulated=True),
        replace(RESNET, backbone="resnet34", reg_max=7, stacked_convs=4),
    ],
)
def test_every_architecture_comes_back_from_its_own_export(tmp_path: Path, config: DetectorConfig) -> None:
    save_checkpoint(GFL(config), tmp_path / "out" / "gfl.pth", {"epoch": 1})
    assert load_checkpoint(tmp_path / "out" / "gfl.pth").config == config


def test_an_export_has_the_keys_of_the_reference(tmp_path: Path) -> None:
    save_checkpoint(GFL(RESNET), tmp_path / "gfl.pth", {})
    content = torch.load(tmp_path / "gfl.pth", weights_only=True)
    assert content.keys() == {"meta", "state_dict"}
    assert {"backbone.conv1.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.scales.2.scale"} <= set(
        content["state_dict"]
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda state: state.pop("bbox_head.reg_convs.0.gn.bias"),
            "'bbox_head.reg_convs.0.gn.bias' is missing",
        ),
        (lambda state: state.update(extra=torch.zeros(2)), "'extra' is left over"),
        (lambda state: state.pop("backbone.layer3.1.conv1.weight"), r"stages of \(2, 2, 1, 2\) blocks"),
        (lambda state: state.clear(), "expected a GFL detector"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, edit, message: str) -> None:
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


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    path, target = tmp_path / "gfl.pth", tmp_path / "ran"
    torch.save({"state_dict": {}, "meta": Malicious(target)}, path)
    with pytest.raises(TeacherError, match=r"gfl\.pth: expected a checkpoint of tensors and plain values"):
        read_checkpoint(path)
    assert not target.exists()
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Malicious(target), protocol=2))
    with pytest.raises(TeacherError):
        read_checkpoint(tmp_path / "raw.pth")
    assert not target.exists()


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"none\.pth: expected a checkpoint, but there is none"):
        read_checkpoint(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(TeacherError, match=r"text\.pth: expected a checkpoint"):
        read_checkpoint(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(TeacherError, match="expected a state dict of tensors"):
        read_checkpoint(tmp_path / "list.pth")
