"""Conventions: fingerprints as they always were, and pixels as other code makes them."""

import cv2
import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace

from pipeline.core.config import structure
from pipeline.core.errors import CacheError, ConfigError
from pipeline.views.conventions import GFL_CONVENTIONS, GFL_PREPROCESSING, Conventions, Preprocessing
from pipeline.views.geometry import ViewsConfig
from pipeline.views.images import network_input, resize_image

IN_OLD_FINGERPRINTS = {
    "decoder": "pillow",
    "colour": "RGB",
    "resize": "bilinear, half-pixel centres, no antialiasing, rounded to 8 bits",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "padding": "zeros after normalising, right and bottom",
}
LETTERBOX = replace(GFL_PREPROCESSING, fit="letterbox_centred", fill=114, color="BGR", sampling="corner")


def test_conventions_come_back_from_fingerprint_and_description() -> None:
    assert GFL_CONVENTIONS.to_json() == {"preprocessing": IN_OLD_FINGERPRINTS}
    assert Conventions.from_json({}) == GFL_CONVENTIONS
    for conventions in (GFL_CONVENTIONS, Conventions(preprocessing=LETTERBOX, cell_offset=0.5)):
        pixels = conventions.preprocessing.to_json()
        fingerprint = {"preprocessing": pixels, "geometry": {"bins": 8, **conventions.geometry()}}
        assert Conventions.from_json(fingerprint) == conventions
        assert Conventions.from_json({"architecture": {}, **conventions.to_json()}) == conventions


@pytest.mark.parametrize(
    "changes",
    [
        {"resize": "bicubic"},
        {"decoder": "other"},
        {"fit": "crop"},
        {"gamma": 2},
        {"mean": [0]},
        {"fit": "letterbox_centred", "fill": 114},  # an older one
    ],
)
def test_pixels_that_this_code_does_not_make_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(CacheError, match=r"expected a preprocessing that.*; read it with the code"):
        Preprocessing.from_json({**IN_OLD_FINGERPRINTS, **changes})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"fit": "letterbox"}, "fill"),
        ({"fill": 114}, "fill"),
        ({"fit": "letterbox", "fill": 256}, "fill"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
    ],
)
def test_impossible_preprocessing_is_refused_with_the_key(changes: dict[str, object], key: str) -> None:
    document = {**to_builtins(GFL_PREPROCESSING), **changes}
    with pytest.raises(ConfigError, match=rf"^pixels\.{key}[\[\]1]*: expected"):
        structure(Preprocessing, document, "pixels")


@pytest.mark.parametrize("size_hw", [(40, 60), (33, 47), (100, 155)])
def test_corner_sampling_is_opencvs_perspective_warp(size_hw: tuple[int, int]) -> None:
    """Away from the right and lower border, where the warp reads beyond the image."""
    smooth = torch.rand((1, 3, 10, 15), generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(200 * smooth, (80, 120), mode="bicubic")[0].clamp(0, 255).byte()
    height, width = size_hw
    warp = np.diag([width / 120, height / 80, 1.0])
    image = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    expected = cv2.warpPerspective(image, warp, (width, height)).astype(int)
    found = resize_image(pixels, size_hw, "corner").permute(1, 2, 0).numpy().astype(int)
    # OpenCV places samples on a grid of 1/32 px.
    assert np.abs(found - expected)[:-2, :-2].max() <= 2
    assert np.abs(resize_image(pixels, size_hw).permute(1, 2, 0).numpy() - expected)[:-2, :-2].max() > 2


def test_a_batch_in_bgr_is_one_in_rgb_with_its_channels_swapped() -> None:
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    rgb = network_input(pixels, (32, 32), GFL_PREPROCESSING)
    mean, std = GFL_PREPROCESSING.mean[::-1], GFL_PREPROCESSING.std[::-1]
    swapped = replace(GFL_PREPROCESSING, color="BGR", mean=mean, std=std)
    torch.testing.assert_close(network_input(pixels, (32, 32), swapped), rgb.flip(1), rtol=0, atol=0)


@pytest.mark.parametrize("original_hw", [(480, 640), (427, 640), (333, 500), (2, 2000), (281, 500)])
def test_letterboxes_round_as_where_they_come_from(original_hw: tuple[int, int]) -> None:
    """Ultralytics' ``LetterBox`` and YOLOX's ``preproc``, line by line."""
    for canvas in (320, 416, 640):
        ratio = min(canvas / original_hw[0], canvas / original_hw[1])
        new_unpad = round(original_hw[1] * ratio), round(original_hw[0] * ratio)
        top = round((canvas - new_unpad[1]) / 2 - 0.1)
        config = ViewsConfig(scales=((canvas, canvas),), flips=(False,))
        view = config.geometry(original_hw, 1, 0, "letterbox_centred")
        if min(new_unpad):
            assert view.content_hw == new_unpad[::-1]
            assert view.content_top_left[0] == top
        left = config.geometry(original_hw, 1, 0, "letterbox").content_hw
        assert left == (max(1, int(original_hw[0] * ratio)), max(1, int(original_hw[1] * ratio)))
