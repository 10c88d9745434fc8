"""torchvision backbones that return C3, C4 and C5, with torchvision's own parameter names."""

from torch import Tensor, nn
from torchvision.models.mobilenetv3 import mobilenet_v3_small
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import deform_conv2d

from pipeline.detector.config import DetectorConfig

Features = tuple[Tensor, Tensor, Tensor]
"""C3, C4 and C5, of strides 8, 16 and 32."""

RESNET_LAYERS: dict[str, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    "resnet10": (BasicBlock, [1, 1, 1, 1]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnext101_32x4d": (Bottleneck, [3, 4, 23, 3]),
}


class DeformableConv(nn.Module):
    """3x3 deformable convolution v1 (Dai et al., ICCV 2017), or ``modulated`` v2 (Zhu et al., CVPR 2019).

    Offsets are ordered (y, x) for each tap, taps row-major; they and the masks' logits start at zero.
    """

    def __init__(self, replaced: nn.Conv2d, *, modulated: bool) -> None:
        super().__init__()
        self.modulated = modulated
        stride, kernel = replaced.stride[0], replaced.kernel_size[0]
        self.stride, self.padding = (stride, stride), (kernel // 2, kernel // 2)
        self.weight = nn.Parameter(replaced.weight.detach().clone())
        outputs = (3 if modulated else 2) * kernel**2
        self.conv_offset = nn.Conv2d(replaced.in_channels, outputs, kernel, stride, padding=kernel // 2)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``Tensor[B, C, H, W]`` to ``Tensor[B, C', H', W']``."""
        offset, mask = self.conv_offset(x), None
        if self.modulated:
            offset, mask = offset.split([2 * offset.shape[1] // 3, offset.shape[1] // 3], dim=1)
            mask = mask.sigmoid()
        return deform_conv2d(x, offset, self.weight, stride=self.stride, padding=self.padding, mask=mask)


class ResNetBackbone(ResNet):
    """torchvision's ResNet without its classifier; a bottleneck's stride is in its 3x3 convolution."""

    def __init__(self, config: DetectorConfig) -> None:
        block, layers = RESNET_LAYERS[config.backbone]
        groups, width = (32, 4) if config.backbone.startswith("resnext") else (1, 64)
        super().__init__(block, layers, groups=groups, width_per_group=width)
        del self.avgpool, self.fc
        self.channels = tuple(block.expansion * planes for planes in (128, 256, 512))
        for stage in config.dcn_stages:
            for residual in getattr(self, f"layer{stage - 1}"):
                residual.conv2 = DeformableConv(residual.conv2, modulated=config.dcn_modulated)

    def forward(self, x: Tensor) -> Features:  # type: ignore[override]
        """Images ``Tensor[B, 3, H, W]`` to C3, C4, C5."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)

    def stem_and_stages(self) -> list[nn.Module]:
        """Modules as ``frozen_stages`` counts them: stem, stage 1, stage 2, ..."""
        return [nn.ModuleList([self.conv1, self.bn1]), self.layer1, self.layer2, self.layer3, self.layer4]


class MobileNetBackbone(nn.Module):
    """torchvision's MobileNetV3-small features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = mobilenet_v3_small().features
        self.channels = (24, 48, 576)

    def forward(self, x: Tensor) -> Features:
        """Images ``Tensor[B, 3, H, W]`` to C3, C4, C5."""
        c3 = self.features[:4](x)
        c4 = self.features[4:9](c3)
        return c3, c4, self.features[9:](c4)

    def stem_and_stages(self) -> list[nn.Module]:
        """Stem, then every feature module as a stage."""
        return list(self.features)


def build_backbone(config: DetectorConfig) -> ResNetBackbone | MobileNetBackbone:
    """A randomly initialized backbone."""
    return ResNetBackbone(config) if config.backbone in RESNET_LAYERS else MobileNetBackbone()


def freeze_stages(backbone: ResNetBackbone | MobileNetBackbone, stages: int) -> None:
    """Stop gradients of stem and first ``stages`` stages, as mmdetection; negative freezes nothing."""
    for module in backbone.stem_and_stages()[: stages + 1]:
        module.requires_grad_(requires_grad=False)


def set_norms_to_eval(module: nn.Module, *, frozen_only: bool) -> None:
    """Use running statistics in every BatchNorm (``norm_eval``), or in frozen ones, as mmdetection."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d) and not (frozen_only and child.weight.requires_grad):
            child.eval()
