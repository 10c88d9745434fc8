"""Reading, resizing and normalising images.

The resize is the reference's: bilinear, half-pixel centres, *no antialiasing*, rounded to 8 bits
(OpenCV ``INTER_LINEAR``, from which it differs by at most one grey level).
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from pipeline.data.views import ViewGeometry
from pipeline.errors import DatasetError

MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation, grey levels (the GFL configurations)."""

PREPROCESSING = {
    "decoder": "pillow",
    "colour": "RGB",
    "resize": "bilinear, half-pixel centres, no antialiasing, rounded to 8 bits",
    "mean": list(MEAN_RGB),
    "std": list(STD_RGB),
    "padding": "zeros after normalising, right and bottom",
}
"""What is done to pixels, as it stands in fingerprints."""


def read_image(path: Path, expected_hw: tuple[int, int]) -> Tensor:
    """Decode an image to RGB (greyscale and CMYK are converted): ``ByteTensor[3, H, W]``.

    Raises:
        DatasetError: missing, unreadable, or of another size than the annotations say.
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected an image, but there is none") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path}: expected an image, but it cannot be read ({error})") from error
    if pixels.shape[:2] != expected_hw:
        raise DatasetError(
            f"{path}: expected an image of (height, width) = {expected_hw}, but got {pixels.shape[:2]}"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def resize_image(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize ``ByteTensor[3, H, W]`` to ``size_hw``."""
    if tuple(pixels.shape[1:]) == size_hw:
        return pixels
    resized = functional.interpolate(pixels[None].float(), size=size_hw, mode="bilinear", align_corners=False)
    return resized[0].round_().clamp_(0, 255).byte()


def apply_view(pixels: Tensor, geometry: ViewGeometry) -> Tensor:
    """Resize and flip: ``ByteTensor[3, H, W]`` of the original to that of the view, not padded."""
    resized = resize_image(pixels, geometry.resized_hw)
    return resized.flip(-1) if geometry.flip else resized


def batch_images(images: list[Tensor], padded_hw: list[tuple[int, int]]) -> Tensor:
    """Normalise images and pad them with zeros to the largest of their padded sizes.

    Args:
        images: ``ByteTensor[3, H, W]`` each.
        padded_hw: each view's own padded size.

    Returns:
        ``Tensor[B, 3, H, W]``, channels last.
    """
    height = max(size[0] for size in padded_hw)
    width = max(size[1] for size in padded_hw)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN_RGB, STD_RGB))
    batch = torch.zeros(len(images), 3, height, width).to(memory_format=torch.channels_last)
    for target, pixels in zip(batch, images, strict=True):
        target[:, : pixels.shape[1], : pixels.shape[2]] = (pixels.float() - mean) / std
    return batch
