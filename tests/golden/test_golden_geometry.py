"""Sizes, boxes and pixels of the image pipeline."""

import numpy as np
import pytest
import torch
from golden_data import FOLDER, load, size_of

from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.geometry import ViewGeometry, pad_size, resize_keep_ratio, scale_factors, transform_boxes
from pipeline.views.images import apply_view, network_input, resize_image

DATA = load(FOLDER / "geometry.npz")
ROWS = range(len(DATA["orig_wh"]))
PIXEL_CASES = range(int(DATA["n_pix"]))

PIXEL_TOLERANCE = 0.0181
"""One gray level after normalizing: OpenCV's fixed-point resize rounds differently (set's README, 9)."""

BOX_TOLERANCE = {"rtol": 0, "atol": 1e-4}


def geometry_of(row: int, *, flip: bool) -> ViewGeometry:
    width, height = DATA["orig_wh"][row].tolist()
    resized = resize_keep_ratio((height, width), size_of(DATA["scale"][row]))
    return ViewGeometry(
        original_hw=(height, width), resized_hw=resized, padded_hw=pad_size(resized), flip=flip
    )


def test_there_are_cases() -> None:
    assert len(ROWS) > 0
    assert len(PIXEL_CASES) > 0


@pytest.mark.parametrize("row", ROWS)
def test_sizes(row: int) -> None:
    geometry = geometry_of(row, flip=False)
    assert geometry.resized_hw[::-1] == size_of(DATA["new_wh"][row])
    assert geometry.padded_hw == size_of(DATA["pad_hw"][row])
    np.testing.assert_array_equal(scale_factors(geometry), DATA["scale_factor"][row].numpy())


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("name", "flip"), [("resized", False), ("flipped", True)])
def test_boxes(row: int, name: str, *, flip: bool) -> None:
    found = transform_boxes(DATA["boxes"][row].numpy(), geometry_of(row, flip=flip))
    torch.testing.assert_close(torch.from_numpy(found), DATA[f"boxes_{name}"][row], **BOX_TOLERANCE)


def rgb_of(case: int) -> torch.Tensor:
    """The recorded input, which is blue-green-red, as ``ByteTensor[3, H, W]``."""
    return DATA[f"pix{case}_input_bgr"].flip(-1).permute(2, 0, 1).byte()


def pixel_geometry(case: int) -> ViewGeometry:
    original = tuple(DATA[f"pix{case}_input_bgr"].shape[:2])
    resized = resize_keep_ratio(original, size_of(DATA[f"pix{case}_scale"]))
    return ViewGeometry(
        original_hw=original,
        resized_hw=resized,
        padded_hw=pad_size(resized),
        flip=bool(DATA[f"pix{case}_flip"]),
    )


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_resized_pixels_are_at_most_one_gray_level_off(case: int) -> None:
    resized = resize_image(rgb_of(case), pixel_geometry(case).resized_hw)
    expected = DATA[f"pix{case}_resized_bgr"].flip(-1).permute(2, 0, 1)
    assert (resized.long() - expected).abs().max() <= 1


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_network_input(case: int) -> None:
    geometry = pixel_geometry(case)
    assert geometry.resized_hw == size_of(DATA[f"pix{case}_img_hw"])
    assert geometry.padded_hw == size_of(DATA[f"pix{case}_pad_hw"])
    view = apply_view(rgb_of(case), geometry, GFL_PREPROCESSING)
    found = network_input(view, geometry.padded_hw, GFL_PREPROCESSING)[0]
    expected = DATA[f"pix{case}_final_chw"]
    torch.testing.assert_close(found, expected, rtol=0, atol=PIXEL_TOLERANCE)
    # Padding is exactly 0.
    height, width = geometry.resized_hw
    assert not found[:, height:].any()
    assert not found[:, :, width:].any()
