"""Reading, resizing and normalising images.

The resize is the reference's: bilinear, half-pixel centres, *no antialiasing*, rounded to 8 bits
(OpenCV ``INTER_LINEAR``, from which it differs by at most one grey level).
"""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from pipeline.data.views import ViewGeometry
from pipeline.errors import DatasetError

MEAN_RGB = (123.675, 116.28, 103.53)
STD_RGB = (58.395, 57.12, 57.375)
"""ImageNet's mean and standard deviation, grey levels (the GFL configurations)."""

UNREADABLE = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
)
"""What Pillow raises, depending on the format and on the place where it is broken."""

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
    """Decode an image to RGB: ``ByteTensor[3, H, W]``.

    As OpenCV does, greyscale, palettes and CMYK are converted, transparency is left out, and of 16 bits the
    upper 8 are taken.

    Raises:
        DatasetError: missing, unreadable, moving, or of another size than the annotations say.
    """
    try:
        with Image.open(path) as image:
            # Before anything is decoded: a file of a few KB can hold more pixels than the memory.
            _require_still(image, path, expected_hw)
            pixels = _to_rgb(image)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: expected an image, but there is none") from error
    except UNREADABLE as error:
        raise DatasetError(f"{path}: expected an image, but it cannot be read ({error})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _require_still(image: Image.Image, path: Path, expected_hw: tuple[int, int]) -> None:
    """One picture, of the expected size."""
    if (image.height, image.width) != expected_hw:
        raise DatasetError(
            f"{path}: expected an image of (height, width) = {expected_hw}, "
            f"but got {(image.height, image.width)}"
        )
    frames = getattr(image, "n_frames", 1)
    # A camera's MPO is a JPEG with more JPEGs behind it, such as a preview.
    if frames > 1 and image.format != "MPO":
        raise DatasetError(
            f"{path}: expected a still image, but got {frames} frames; save the one that is meant"
        )


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels ``(H, W, 3)``."""
    # Pillow would clip these to white instead.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        upper = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"a pixel is a 32-bit number, mode {image.mode}: convert it to 8 bits")
    # A palette with transparency goes by way of RGBA, or Pillow warns.
    return np.array(image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB"))


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
