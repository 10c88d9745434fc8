"""Decoding and resizing against OpenCV, which the reference uses, on real photos.

Needs a COCO-layout folder with real images; its path is taken from LD_COCO_SAMPLE.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.datasets.coco import read_coco
from pipeline.views.geometry import resize_keep_ratio
from pipeline.views.images import read_image, resize_image

SAMPLE = os.environ.get("LD_COCO_SAMPLE")
COCO_SCALE = (1333, 800)


def resize_difference(pixels: torch.Tensor, size_hw: tuple[int, int]) -> np.ndarray:
    """Gray levels between this project's resize and OpenCV's ``INTER_LINEAR``."""
    image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    expected = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    return np.abs(resize_image(pixels, size_hw).permute(1, 2, 0).numpy().astype(int) - expected)


@pytest.mark.parametrize("size_hw", [(40, 60), (100, 155), (61, 47)])
def test_the_resize_is_opencvs_to_one_gray_level(size_hw: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 80, 120), dtype=torch.uint8, generator=generator)
    assert resize_difference(pixels, size_hw).max() <= 1


@pytest.mark.skipif(SAMPLE is None, reason="LD_COCO_SAMPLE names no folder with real COCO images")
def test_real_photos_are_decoded_and_resized_as_by_opencv() -> None:
    manifest = read_coco(Path(str(SAMPLE)) / "annotations/instances_val.json", str(SAMPLE), "val")
    decoded, resized = [], []
    for record in manifest.images[:16]:
        path, size_hw = manifest.image_path(record), (record.height, record.width)
        pixels = read_image(path, size_hw)
        reference = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)
        decoded.append(np.abs(pixels.permute(1, 2, 0).numpy().astype(int) - reference))
        resized.append(resize_difference(pixels, resize_keep_ratio(size_hw, COCO_SCALE)))
    assert max(difference.max() for difference in resized) <= 1
    # Both decode with libjpeg-turbo; builds differ in rounding of the inverse transform at most.
    assert np.mean([difference.mean() for difference in decoded]) < 0.5
