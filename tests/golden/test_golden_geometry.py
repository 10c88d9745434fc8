"""Sizes, boxes and pixels of the image pipeline."""

import numpy as np
import pytest
import torch
from golden_data import FOLDER, load, size_of

from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.geometry import ViewGeometry, ViewsConfig, scale_factors, transform_boxes
from pipeline.views.images import apply_view, network_input, resize_image
from pipeline.views.pyramid import Size

DATA = load(FOLDER / "geometry.npz")
ROWS = range(len(DATA["orig_wh"]))
PIXEL_CASES = range(int(DATA["n_pix"]))
assert ROWS
assert PIXEL_CASES

PIXEL_TOLERANCE = 0.0181
"""One gray level after normalizing: OpenCV's fixed-point resize rounds differently (set's README, 9)."""

BOX_TOLERANCE = {"rtol": 0, "atol": 1e-4}


def geometry_of(original_hw: Size, scale: torch.Tensor, *, flip: bool) -> ViewGeometry:
    return ViewsConfig(scales=(size_of(scale),), flips=(flip,)).geometry(original_hw, 0, 0)


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("name", "flip"), [("resized", False), ("flipped", True)])
def test_sizes_and_boxes(row: int, name: str, *, flip: bool) -> None:
    geometry = geometry_of(size_of(DATA["orig_wh"][row])[::-1], DATA["scale"][row], flip=flip)
    assert geometry.resized_hw[::-1] == size_of(DATA["new_wh"][row])
    assert geometry.padded_hw == size_of(DATA["pad_hw"][row])
    np.testing.assert_array_equal(scale_factors(geometry), DATA["scale_factor"][row].numpy())
    found = transform_boxes(DATA["boxes"][row].numpy(), geometry)
    torch.testing.assert_close(torch.from_numpy(found), DATA[f"boxes_{name}"][row], **BOX_TOLERANCE)


@pytest.mark.parametrize("case", PIXEL_CASES)
def test_pixels(case: int) -> None:
    """After the resize they are at most one gray level off."""
    data = {name: DATA[f"pix{case}_{name}"] for name in ("scale", "flip", "img_hw", "pad_hw", "final_chw")}
    # Recorded as (H, W, 3), blue-green-red.
    recorded = (DATA[f"pix{case}_{name}_bgr"] for name in ("input", "resized"))
    image, resized = (pixels.flip(-1).permute(2, 0, 1) for pixels in recorded)
    height, width = image.shape[1:]
    geometry = geometry_of((height, width), data["scale"], flip=bool(data["flip"]))
    assert geometry.resized_hw == size_of(data["img_hw"])
    assert geometry.padded_hw == size_of(data["pad_hw"])
    assert (resize_image(image.byte(), geometry.resized_hw).long() - resized).abs().max() <= 1
    view = apply_view(image.byte(), geometry, GFL_PREPROCESSING)
    found = network_input(view, geometry.padded_hw, GFL_PREPROCESSING)[0]
    torch.testing.assert_close(found, data["final_chw"], rtol=0, atol=PIXEL_TOLERANCE)
    height, width = geometry.resized_hw
    assert not found[:, height:].any(), "padding is exactly 0"
    assert not found[:, :, width:].any()
