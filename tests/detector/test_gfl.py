"""The detector as a whole: its files load strictly, and its configuration refuses nonsense."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file
from teacher_cases import DETECTOR

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError, TeacherError
from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, load_detector, save_detector


def test_a_detector_reads_back_as_it_was_written(tmp_path: Path) -> None:
    model = GFL(DETECTOR)
    save_detector(model, tmp_path / "d.safetensors", {"note": "x"})
    again = load_detector(tmp_path / "d.safetensors")
    assert again.config == DETECTOR
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda state: state.pop("neck.fpn_convs.0.conv.bias"), "'neck.fpn_convs.0.conv.bias' is missing"),
        (lambda state: state.update(extra=torch.zeros(1)), "'extra' is left over"),
        (
            lambda state: state.update({"bbox_head.gfl_cls.bias": torch.zeros(5)}),
            r"'bbox_head.gfl_cls.bias' has shape \(5,\), expected \(4,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_their_first_key(tmp_path: Path, edit, message: str) -> None:
    path = tmp_path / "d.safetensors"
    save_detector(GFL(DETECTOR), path, {})
    state = load_file(path)
    edit(state)
    save_file(state, path)
    with pytest.raises(TeacherError, match=message):
        load_detector(path)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet10", "resnet18"])
@pytest.mark.parametrize("levels", [3, 5])
def test_levels_have_the_sizes_of_their_strides(backbone: str, levels: int) -> None:
    config = replace(DETECTOR, backbone=backbone, levels=levels)
    raw = GFL(config).eval()(torch.zeros(2, 3, 96, 160))
    assert raw.sizes == tuple((-(-96 // stride), -(-160 // stride)) for stride in config.strides)
    assert raw.edge_logits.shape == (2, sum(h * w for h, w in raw.sizes), 4, 17)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone": "vgg"}, r"d\.backbone: expected one of"),
        ({"levels": 2}, r"d\.levels: expected an integer >= 3, but got 2"),
        ({"channels": 10}, "channels: expected a multiple of norm_groups=4"),
        ({"dcn_stages": (3,)}, r"d\.dcn_stages: expected none for mobilenet_v3_small"),
    ],
)
def test_impossible_architectures_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        structure(DetectorConfig, DETECTOR.to_json() | change, "d")


def test_frozen_stages_get_no_gradient_and_norms_stay_in_eval_mode() -> None:
    model = GFL(replace(DETECTOR, backbone="resnet10")).train()
    freeze_stages(model.backbone, 1)
    set_norms_to_eval(model, frozen_only=True)
    frozen = {key.split(".")[1] for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    assert not model.backbone.layer1[0].bn1.training
    assert model.backbone.layer4[0].bn1.training
    set_norms_to_eval(model, frozen_only=False)
    assert not model.backbone.layer4[0].bn1.training
    freeze_stages(model.backbone, -1)
