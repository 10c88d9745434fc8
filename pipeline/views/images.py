"""Reading, resizing and normalizing images.

Every resize is bilinear, *without antialiasing*, and rounded to 8 bits. With half-pixel centers it is the
reference's (OpenCV ``INTER_LINEAR``, from which it differs by at most one gray level). Its bits depend
neither on the number of threads nor on the processor, for each product and each sum is rounded by itself:
torch's ``interpolate`` takes another kernel with one thread than with two.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.views.conventions import Preprocessing, Sampling
from pipeline.views.decode import read_rgb
from pipeline.views.geometry import ViewGeometry


def read_image(path: Path, expected_hw: tuple[int, int], sha256: str = "") -> Tensor:
    """Decode an image to RGB: ``ByteTensor[3, H, W]``, see :func:`~pipeline.views.decode.read_rgb`."""
    pixels = read_rgb(path, expected_hw, sha256)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def resize_image(pixels: Tensor, size_hw: tuple[int, int], sampling: Sampling = "half_pixel") -> Tensor:
    """Resize ``ByteTensor[3, H, W]`` to ``size_hw``."""
    if tuple(pixels.shape[1:]) == size_hw:
        return pixels
    values = pixels.numpy().astype(np.float32)
    for axis, size in ((2, size_hw[1]), (1, size_hw[0])):
        values = _resize_axis(values, size, axis, sampling)
    return torch.from_numpy(np.rint(values, out=values).astype(np.uint8))


def _resize_axis(
    values: NDArray[np.float32], size: int, axis: int, sampling: Sampling
) -> NDArray[np.float32]:
    """Resize one axis: sample ``i`` lies at ``(i + 0.5) * old / new - 0.5``, or at ``i * old / new``."""
    old = values.shape[axis]
    center = np.float32(0.5 if sampling == "half_pixel" else 0)
    places = np.float32(old / size) * (np.arange(size, dtype=np.float32) + center) - center
    places = places.clip(min=0)
    lower = places.astype(np.int64)
    weight = (places - lower.astype(np.float32)).reshape([-1 if i == axis else 1 for i in range(3)])
    resized = values.take(lower, axis)
    resized *= 1 - weight
    resized += weight * values.take((lower + 1).clip(max=old - 1), axis)
    return resized


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


def stack_images(images: Sequence[Tensor], batch_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images beside one another as they are, for a device to normalize: a quarter of the bytes.

    Args:
        images: ``ByteTensor[3, H, W]`` each.
        batch_hw: size of the batch, px.

    Returns:
        ``ByteTensor[B, *batch_hw, 3]``, and the size of each image in it, ``LongTensor[B, 2]``.
    """
    stacked = torch.zeros(len(images), *batch_hw, 3, dtype=torch.uint8)
    for target, pixels in zip(stacked, images, strict=True):
        target[: pixels.shape[1], : pixels.shape[2]] = pixels.permute(1, 2, 0)
    return stacked, torch.tensor([image.shape[1:] for image in images])


def normalize_images(stacked: Tensor, sizes_hw: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What a network is given of :func:`stack_images`, where they lie; zeros beside each image.

    Returns:
        ``Tensor[B, 3, H, W]``, channels last.
    """
    device, (height, width) = stacked.device, stacked.shape[1:3]
    mean, std = _mean_std(preprocessing.mean, preprocessing.std, device)
    ordered = stacked if preprocessing.color == "RGB" else stacked.flip(-1)
    normalized = (ordered.float() - mean) / std
    below = torch.arange(height, device=device) >= sizes_hw[:, :1]
    beside = torch.arange(width, device=device) >= sizes_hw[:, 1:]
    outside = below[:, :, None] | beside[:, None, :]
    return normalized.masked_fill_(outside[..., None], 0).permute(0, 3, 1, 2)


@cache
def _mean_std(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """``Tensor[3]`` each, copied to each device once."""
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


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
    return normalize_images(*stack_images(images, (height, width)), preprocessing)
