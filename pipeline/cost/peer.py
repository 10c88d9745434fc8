"""A peer to measure beside: a training step of torchvision's ``fcos_resnet50_fpn``."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from pipeline.detector.device import autocast
from pipeline.training.config import TrainConfig
from pipeline.training.step import build_optimizer

STAGES = 5
"""Of its backbone, the stem included."""

Boxes = tuple[Tensor, Tensor]
"""``Tensor[N, 4]`` xyxy px and ``LongTensor[N]`` labels of one image."""


def peer_step(
    images: Tensor, boxes: list[Boxes], num_classes: int, config: TrainConfig, device: torch.device
) -> Callable[[], None]:
    """A function that takes one step: forward, its own matching and losses, backward, update.

    Weights are random; frozen stages, BatchNorm, optimizer and precision are a student's ``config``'s.
    ``images`` are ``Tensor[B, 3, H, W]``, padded, and neither resized nor padded again.
    """
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d if config.norm_eval else torch.nn.BatchNorm2d,
        trainable_layers=STAGES - max(0, config.frozen_stages + 1),
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = FCOS(backbone, num_classes + 1, _skip_resize=True)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    optimizer = build_optimizer(model, config, device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    targets = [{"boxes": xyxy.to(device), "labels": labels.to(device)} for xyxy, labels in boxes]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.precision, device):
            losses: dict[str, Tensor] = model(list(images), targets)
        scaler.scale(torch.stack([*losses.values()]).sum()).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()

    return step
