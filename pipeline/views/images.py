"""Reading, resizing and normalizing images.

A resize is bilinear, *without antialiasing*, rounded to 8 bits: to one gray level OpenCV's ``INTER_LINEAR``.
Each product and sum is rounded by itself: unlike torch's, its bits depend on no thread and no processor.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.views.conventions import Preprocessing, Sampling
from pipeline.views.decode import read_rgb
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pyramid import Size

ViewFile = tuple[tuple[Path, Size, str], ViewGeometry]
"""Arguments of :func:`read_image`, and the view of that image."""

STRIP_ROWS = 32
"""Rows of a resized image that are made at a time, in a core's cache: 0.5 MB of a view of 1333x800."""


def read_image(path: Path, expected_hw: Size, sha256: str = "") -> Tensor:
    """:func:`~pipeline.views.decode.read_rgb` as ``ByteTensor[3, H, W]``, a pixel's channels side by side."""
    return torch.from_numpy(np.ascontiguousarray(read_rgb(path, expected_hw, sha256))).permute(2, 0, 1)


def resize_image(pixels: Tensor, size_hw: Size, sampling: Sampling = "half_pixel") -> Tensor:
    """Resize ``ByteTensor[3, H, W]`` to ``size_hw``."""
    (channels, old_height, old_width), (height, width) = pixels.shape, size_hw
    if (old_height, old_width) == size_hw:
        return pixels
    rows = pixels.permute(1, 2, 0).reshape(old_height, -1).numpy()
    upper, lower, down = _samples(old_height, height, sampling)
    columns = _samples(old_width, width, sampling)
    left, right = ((places[:, None] * channels + np.arange(channels)).ravel() for places in columns[:2])
    across, down = columns[2].repeat(channels), down[:, None]
    resized = np.empty((height, width * channels), np.uint8)
    for start in range(0, height, STRIP_ROWS):
        strip = slice(start, start + STRIP_ROWS)
        first, last, weight = upper[strip][0], lower[strip][-1], down[strip]
        old = rows[first : last + 1].astype(np.float32)
        # Without "clip" numpy looks at every index a second time; all are inside.
        wide = old.take(left, 1, mode="clip") * (1 - across)
        wide += old.take(right, 1, mode="clip") * across
        values = wide[upper[strip] - first] * (1 - weight)
        values += wide[lower[strip] - first] * weight
        resized[strip] = np.rint(values, out=values)
    return torch.from_numpy(resized.reshape(height, width, channels)).permute(2, 0, 1)


def _samples(
    old: int, size: int, sampling: Sampling
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Both neighbors of each sample of an axis, and the weight of the second."""
    center = np.float32(0.5 if sampling == "half_pixel" else 0)
    places = np.float32(old / size) * (np.arange(size, dtype=np.float32) + center) - center
    places = places.clip(min=0)
    lower = places.astype(np.int64)
    return lower, (lower + 1).clip(max=old - 1), places - lower.astype(np.float32)


def apply_view(pixels: Tensor, geometry: ViewGeometry, preprocessing: Preprocessing) -> Tensor:
    """Resize, letterbox and flip: ``ByteTensor[3, H, W]`` of the original to that of the view, not padded."""
    view = resize_image(pixels, geometry.content_hw, preprocessing.sampling)
    if geometry.content_hw != geometry.resized_hw:
        assert preprocessing.fill is not None, "a letterbox has a gray level"
        content, (top, left) = view, geometry.content_top_left
        view = torch.full((3, *geometry.resized_hw), preprocessing.fill, dtype=torch.uint8)
        view[:, top : top + content.shape[1], left : left + content.shape[2]] = content
    return view.flip(-1) if geometry.flip else view


def read_images(files: Sequence[ViewFile], preprocessing: Preprocessing) -> list[Tensor]:
    """Read views: ``ByteTensor[3, H, W]`` each, not padded."""
    return [apply_view(read_image(*file), view, preprocessing) for file, view in files]


def read_views(files: Sequence[ViewFile], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Read views of one padded size: ``(B, H, W, 3)``; a tensor would take /dev/shm between processes."""
    return stack_images(read_images(files, preprocessing), files[0][1].padded_hw)[0].numpy()


def stack_images(images: Sequence[Tensor], batch_hw: Size) -> tuple[Tensor, Tensor]:
    """A batch ``ByteTensor[B, *batch_hw, 3]``, 0 beside the images, and their sizes ``LongTensor[B, 2]``."""
    stacked = torch.zeros(len(images), *batch_hw, 3, dtype=torch.uint8)
    for target, pixels in zip(stacked, images, strict=True):
        target[: pixels.shape[1], : pixels.shape[2]] = pixels.permute(1, 2, 0)
    return stacked, torch.tensor([image.shape[1:] for image in images])


def normalize_images(stacked: Tensor, sizes_hw: Tensor, preprocessing: Preprocessing) -> Tensor:
    """What a network is given of :func:`stack_images`: ``Tensor[B, 3, H, W]``, channels last, 0 outside."""
    device, (height, width) = stacked.device, stacked.shape[1:3]
    mean, std = _mean_std(preprocessing.mean, preprocessing.std, device)
    ordered = stacked if preprocessing.color == "RGB" else stacked.flip(-1)
    # Rows of numbers, not of pixels: a CPU takes three at a time otherwise.
    normalized = ordered.flatten(2).float().sub_(mean.repeat(width)).div_(std.repeat(width))
    if device.type == "cpu":  # in two thirds of the time
        for image, (own_height, own_width) in zip(normalized, sizes_hw.tolist(), strict=True):
            image[own_height:], image[:, 3 * own_width :] = 0, 0
    else:
        below = torch.arange(height, device=device) >= sizes_hw[:, :1]
        beside = torch.arange(width, device=device).repeat_interleave(3) >= sizes_hw[:, 1:]
        normalized.masked_fill_(below[:, :, None], 0).masked_fill_(beside[:, None, :], 0)
    return normalized.view(*stacked.shape).permute(0, 3, 1, 2)


@cache
def _mean_std(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """``Tensor[3]`` each, copied to each device once."""
    return torch.tensor(mean, device=device), torch.tensor(std, device=device)


def network_input(view: Tensor, padded_hw: Size, preprocessing: Preprocessing) -> Tensor:
    """What a network is given of one view, ``ByteTensor[3, H, W]``: ``Tensor[1, 3, *padded_hw]``."""
    return normalize_images(*stack_images([view], padded_hw), preprocessing)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for what is small, where sharing it costs more than it saves and may move last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
