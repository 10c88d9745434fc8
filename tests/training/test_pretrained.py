"""ImageNet weights: from the cache they load strictly; a machine without network gets one clear sentence."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from msgspec.structs import replace
from teacher_cases import DETECTOR
from torchvision.models import ResNet18_Weights, resnet18

from pipeline.core.errors import TeacherError
from pipeline.detector.backbone import build_backbone
from pipeline.training.pretrained import load_imagenet


def test_a_classifiers_weights_become_a_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = resnet18()
    monkeypatch.setattr(
        ResNet18_Weights, "get_state_dict", lambda *_args, **_kwargs: dict(classifier.state_dict())
    )
    backbone = build_backbone(replace(DETECTOR, backbone="resnet18"))
    load_imagenet(backbone, "resnet18")
    assert torch.equal(backbone.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)


def test_without_network_the_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_args: object, **_kwargs: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    missing = rf"but .*resnet18.* cannot be fetched .*; put that file at {tmp_path}/checkpoints/resnet18"
    with pytest.raises(TeacherError, match=missing):
        load_imagenet(build_backbone(replace(DETECTOR, backbone="resnet18")), "resnet18")
