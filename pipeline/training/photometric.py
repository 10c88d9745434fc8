"""Photometric augmentation: it moves no box, so that a store's targets hold for what it makes of a view."""

import math
from random import Random

from torch import Tensor
from torchvision.transforms.v2 import functional

from pipeline.training.config import PhotometricConfig
from pipeline.views.images import one_thread

REACH = 3
"""A Gaussian is cut off after this many standard deviations."""


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
