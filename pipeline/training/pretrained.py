"""torchvision's ImageNet weights as a start."""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision.models import WeightsEnum, get_model_weights  # type: ignore[attr-defined]

from pipeline.core.errors import TeacherError

CLASSIFIERS = ("fc.", "classifier.")
"""Keys that a detector has no use for."""


def load_imagenet(backbone: nn.Module, name: str) -> None:
    """Load torchvision's ImageNet weights by the backbone's name, from its cache or from the network.

    Raises a ``TeacherError`` if it has none of this name, or they cannot be had on this machine.
    """
    weights = _weights(name)
    try:
        state = weights.get_state_dict(check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise TeacherError(
            f"backbone {name}: expected ImageNet weights, but {weights.url} cannot be fetched ({error}); "
            f"put that file at {_cached(weights)}, or set pretrained: false"
        ) from error
    state = {key: value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    # Offsets of deformable convolutions start at zero: no classifier has them.
    if wrong := [*(key for key in missing if "conv_offset" not in key), *unexpected]:
        raise TeacherError(f"backbone {name}: its ImageNet weights do not fit, first at {wrong[0]!r}")


def has_imagenet(name: str) -> bool:
    """Whether this machine has the weights of a backbone; a ``TeacherError`` if torchvision has none."""
    return _cached(_weights(name)).is_file()


def _weights(name: str) -> WeightsEnum:
    """Those that mmdetection's ``torchvision://`` names."""
    try:
        return get_model_weights(name)["IMAGENET1K_V1"]
    except (ValueError, KeyError) as error:
        raise TeacherError(
            f"backbone {name}: torchvision has no ImageNet weights of this name; set pretrained: false"
        ) from error


def _cached(weights: WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
