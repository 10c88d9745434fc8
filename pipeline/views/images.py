"""Reading, resizing and normalizing images.

Every resize is bilinear, *without antialiasing*, and rounded to 8 bits. With half-pixel centers it is the
reference's (OpenCV ``INTER_LINEAR``, from which it differs by at most one gray level).
"""

import struct
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from pipeline.core.errors import DatasetError
from pipeline.views.conventions import Preprocessing, Sampling
from pipeline.views.geometry import ViewGeometry

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


def read_image(path: Path, expected_hw: tuple[int, int]) -> Tensor:
    """Decode an image to RGB: ``ByteTensor[3, H, W]``.

    As OpenCV does, grayscale, palettes and CMYK are converted, transparency is left out, and of 16 bits the
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


def resize_image(pixels: Tensor, size_hw: tuple[int, int], sampling: Sampling = "half_pixel") -> Tensor:
    """Resize ``ByteTensor[3, H, W]`` to ``size_hw``."""
    if tuple(pixels.shape[1:]) == size_hw:
        return pixels
    match sampling:
        case "half_pixel":
            resized = functional.interpolate(
                pixels[None].float(), size=size_hw, mode="bilinear", align_corners=False
            )[0]
        case "corner":
            resized = _lerp_axis(_lerp_axis(pixels.float(), size_hw[0], 1), size_hw[1], 2)
        case _:
            raise ValueError(f"sampling: expected 'half_pixel' or 'corner', but got {sampling!r}")
    return resized.round_().clamp_(0, 255).byte()


def _lerp_axis(pixels: Tensor, size: int, axis: int) -> Tensor:
    """Resize one axis, sample 0 onto sample 0: sample ``i`` lies at ``i * old / new``."""
    old = pixels.shape[axis]
    places = torch.arange(size) * (old / size)
    lower = places.long()
    upper = (lower + 1).clamp(max=old - 1)
    shape = [1, 1, 1]
    shape[axis] = size
    fraction = (places - lower).reshape(shape)
    return torch.lerp(pixels.index_select(axis, lower), pixels.index_select(axis, upper), fraction)


def apply_view(pixels: Tensor, geometry: ViewGeometry, preprocessing: Preprocessing) -> Tensor:
    """Resize, letterbox and flip: ``ByteTensor[3, H, W]`` of the original to that of the view, not padded."""
    view = resize_image(pixels, geometry.content_hw, preprocessing.sampling)
    if geometry.content_hw != geometry.resized_hw:
        view = _letterboxed(view, geometry, preprocessing)
    return view.flip(-1) if geometry.flip else view


def _letterboxed(content: Tensor, geometry: ViewGeometry, preprocessing: Preprocessing) -> Tensor:
    assert preprocessing.fill is not None, "a letterbox has a gray level"
    canvas = torch.full((3, *geometry.resized_hw), preprocessing.fill, dtype=torch.uint8)
    top, left = geometry.content_top_left
    canvas[:, top : top + content.shape[1], left : left + content.shape[2]] = content
    return canvas


def batch_images(
    images: list[Tensor], padded_hw: list[tuple[int, int]], preprocessing: Preprocessing
) -> Tensor:
    """Normalize images and pad them with zeros to the largest of their padded sizes.

    Args:
        images: ``ByteTensor[3, H, W]`` each, RGB.
        padded_hw: each view's own padded size.
        preprocessing: order of the channels, mean and standard deviation.

    Returns:
        ``Tensor[B, 3, H, W]``, channels last.
    """
    height = max(size[0] for size in padded_hw)
    width = max(size[1] for size in padded_hw)
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    batch = torch.zeros(len(images), 3, height, width).to(memory_format=torch.channels_last)
    for target, pixels in zip(batch, images, strict=True):
        ordered = pixels if preprocessing.color == "RGB" else pixels.flip(0)
        target[:, : pixels.shape[1], : pixels.shape[2]] = (ordered.float() - mean) / std
    return batch
