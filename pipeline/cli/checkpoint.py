"""Checkpoints of the LD repository and of mmdetection, in both directions.

This project's modules carry mmdetection's names, so that a state dict maps to itself: every key is used
exactly once and none is left over. What has to be found out is the architecture.
"""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.core.errors import ConfigError, TeacherError
from pipeline.core.files import atomic_path
from pipeline.detector.config import Backbone, DetectorConfig
from pipeline.detector.gfl import GFL, first_mismatch
from pipeline.detector.head import EDGES

HEAD_NORM_GROUPS = 32
"""GroupNorm groups of every published GFL head; a state dict does not show them."""

PARALLEL_PREFIX = "module."
"""Put before every key by ``DistributedDataParallel``."""

RESNETS: dict[tuple[bool, tuple[int, ...]], Backbone] = {
    (False, (1, 1, 1, 1)): "resnet10",
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
}
"""Name by whether the blocks are bottlenecks and by their number in each stage."""

MODULATED_OUTPUTS = 27
"""Channels of the offset convolution of a 3x3 deformable convolution v2; v1 has 18."""

State = Mapping[str, Tensor]


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict of a ``.pth`` file; wrapper (``state_dict``, ``meta``) and ``module.`` are taken off.

    Read with ``weights_only=True``: a file that would run code is refused.

    Raises:
        TeacherError: missing, not a checkpoint, or with more in it than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TeacherError(f"{path}: expected a checkpoint, but there is none") from error
    except Exception as error:  # whatever the bytes of some other file lead the unpickler to
        reason = " ".join(str(error).split())[:200]
        raise TeacherError(
            f"{path}: expected a checkpoint of tensors and plain values, but it cannot be read ({reason})"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise TeacherError(f"{path}: expected a state dict of tensors, alone or under the key 'state_dict'")
    return {key.removeprefix(PARALLEL_PREFIX): value for key, value in state.items()}


def recognize(state: State, where: str) -> DetectorConfig:
    """The architecture whose state dict this is.

    Raises:
        TeacherError: it is not that of a GFL detector with a ResNet backbone.
    """
    channels = _shape(state, "neck.lateral_convs.0.conv.weight", where)[0]
    return DetectorConfig(
        backbone=_backbone(state, where),
        dcn_stages=_dcn_stages(state),
        dcn_modulated=_dcn_modulated(state),
        channels=channels,
        levels=_count(state, r"bbox_head\.scales\.(\d+)\.scale"),
        stacked_convs=_count(state, r"bbox_head\.cls_convs\.(\d+)\.conv\.weight"),
        norm_groups=HEAD_NORM_GROUPS if channels % HEAD_NORM_GROUPS == 0 else 1,
        reg_max=_shape(state, "bbox_head.gfl_reg.bias", where)[0] // EDGES - 1,
        num_classes=_shape(state, "bbox_head.gfl_cls.bias", where)[0],
    )


def load_checkpoint(path: Path) -> GFL:
    """The detector of a ``.pth`` file.

    Raises:
        TeacherError: names the first keys that do not fit.
    """
    state = read_checkpoint(path)
    try:
        model = GFL(recognize(state, str(path)))
    except (ConfigError, IndexError, TypeError) as error:
        raise TeacherError(
            f"{path}: expected a GFL detector, but its shapes are of none ({error})"
        ) from error
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    problem = first_mismatch(expected, state)
    if problem:
        raise TeacherError(f"{path}: the checkpoint does not fit a {model.config.backbone} GFL: {problem}")
    model.load_state_dict(state)
    return model


def save_checkpoint(model: GFL, path: Path, meta: dict[str, Any]) -> None:
    """Write a ``.pth`` file that mmdetection loads: ``state_dict`` and plain values under ``meta``."""
    content = io.BytesIO()
    torch.save({"meta": meta, "state_dict": dict(model.state_dict())}, content)
    with atomic_path(path) as partial:
        partial.write_bytes(content.getvalue())


def _shape(state: State, key: str, where: str) -> tuple[int, ...]:
    if key not in state:
        first = ", ".join(list(state)[:3])
        raise TeacherError(
            f"{where}: expected a GFL detector, but key {key!r} is missing; the first keys are {first}"
        )
    return tuple(state[key].shape)


def _count(state: State, pattern: str) -> int:
    return len({match.group(1) for key in state if (match := re.fullmatch(pattern, key))})


def _backbone(state: State, where: str) -> Backbone:
    bottleneck = "backbone.layer1.0.conv3.weight" in state
    blocks = tuple(_count(state, rf"backbone\.layer{stage}\.(\d+)\.conv1\.weight") for stage in range(1, 5))
    name = RESNETS.get((bottleneck, blocks))
    if name is None:
        raise TeacherError(f"{where}: expected a ResNet backbone, but got stages of {blocks} blocks")
    if bottleneck and _shape(state, "backbone.layer1.0.conv2.weight", where)[1] == 4:
        return "resnext101_32x4d" if name == "resnet101" else name
    return name


def _dcn_stages(state: State) -> tuple[int, ...]:
    """Stages (2-5) with deformable convolutions."""
    layers = (re.match(r"backbone\.layer(\d)\.\d+\.conv2\.conv_offset", key) for key in state)
    return tuple(sorted({int(match.group(1)) + 1 for match in layers if match}))


def _dcn_modulated(state: State) -> bool:
    """Whether the deformable convolutions predict masks (v2) beside their offsets."""
    widths = {len(bias) for key, bias in state.items() if key.endswith("conv_offset.bias")}
    return widths == {MODULATED_OUTPUTS}
