"""Photometric augmentation: it moves no box, so that a store's targets hold for what it makes of a view."""

import math
from random import Random
from typing import Annotated

from msgspec import Meta
from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.core.config import Section
from pipeline.views.images import one_thread

Amount = Annotated[float, Meta(ge=0, le=1)]

REACH = 3
"""A Gaussian is cut off after this many standard deviations."""


class PhotometricConfig(Section, frozen=True, kw_only=True):
    """How far a view's colors are changed at most, in this order; 0 leaves them as they are."""

    brightness: Amount = 0.0
    """A factor is drawn from ``1 - brightness`` to ``1 + brightness``."""
    contrast: Amount = 0.0
    """Likewise."""
    saturation: Amount = 0.0
    """Likewise."""
    hue: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of the color circle, in either direction."""
    blur: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Standard deviation of a Gaussian, px; drawn from 0 to this."""


def augment(pixels: Tensor, config: PhotometricConfig, key: str) -> Tensor:
    """Change the colors of ``ByteTensor[3, H, W]`` by what is drawn from ``key`` alone.

    A letterbox's gray changes with them.
    """
    draw = Random(key).uniform
    with one_thread():  # more of them move last bits, and gray levels with them
        for name, neutral in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
            if amount := getattr(config, name):
                change = getattr(functional, f"adjust_{name}")
                pixels = change(pixels, draw(neutral - amount, neutral + amount))
        sigma = draw(0, config.blur)
        if radius := min(math.ceil(REACH * sigma), min(pixels.shape[1:]) - 1):
            kernel = [2 * radius + 1] * 2
            pixels = functional.gaussian_blur(pixels, kernel, [sigma])  # type: ignore[attr-defined]
    return pixels
