"""Views: geometry by hand, boxes and pixels that move together, choices that depend on the key alone."""

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.data.conventions import GFL_PREPROCESSING
from pipeline.data.images import apply_view
from pipeline.data.views import (
    ViewGeometry,
    ViewsConfig,
    choose_view,
    enumerate_views,
    fit_size,
    pad_size,
    transform_boxes,
)
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("original", "scale", "resized"),
    [
        ((480, 640), (1333, 800), (800, 1067)),  # the short edge decides
        ((300, 900), (1333, 800), (444, 1333)),  # the long edge decides
        ((96, 80), (96, 96), (96, 80)),
        ((1, 3000), (1333, 800), (1, 1333)),  # something is left
    ],
)
def test_images_are_fitted_into_the_scale(
    original: tuple[int, int], scale: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert fit_size(original, scale) == resized


def test_padding_rounds_up_to_32() -> None:
    assert pad_size((800, 1067)) == (800, 1088)


def test_every_scale_comes_with_every_flip() -> None:
    views = enumerate_views((50, 100), ViewsConfig(scales=((100, 60), (50, 30)), flips=(False, True)))
    assert [(view.resized_hw, view.flip) for view in views] == [
        ((50, 100), False),
        ((50, 100), True),
        ((25, 50), False),
        ((25, 50), True),
    ]


@pytest.mark.parametrize("scales", [(), ((30, 50),), ((50, 0),)])
def test_impossible_scales_are_refused(scales: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ConfigError):
        ViewsConfig(scales=scales, flips=(False,))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("resized", [(40, 60), (80, 120)])
def test_boxes_move_with_the_pixels(flip: bool, resized: tuple[int, int]) -> None:
    """A bright rectangle in the image is found in the view where its box says."""
    pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
    pixels[:, 8:20, 6:30] = 255
    geometry = ViewGeometry(original_hw=(40, 60), resized_hw=resized, padded_hw=pad_size(resized), flip=flip)
    view = apply_view(pixels, geometry, GFL_PREPROCESSING)
    x1, y1, x2, y2 = transform_boxes(np.float32([[6, 8, 30, 20]]), geometry)[0].astype(int)
    assert tuple(view.shape[1:]) == resized
    bright = (view[0] > 127).nonzero()
    assert (bright.amin(dim=0).tolist(), (bright.amax(dim=0) + 1).tolist()) == ([y1, x1], [y2, x2])


def test_boxes_are_clipped_to_the_content() -> None:
    geometry = ViewGeometry(original_hw=(40, 60), resized_hw=(40, 60), padded_hw=(64, 64), flip=False)
    boxes = transform_boxes(np.float32([[-5, -5, 70, 50]]), geometry)
    np.testing.assert_array_equal(boxes, np.float32([[0, 0, 60, 40]]))


def test_a_view_is_chosen_by_seed_epoch_and_image_alone_and_all_are_about_as_frequent() -> None:
    chosen = [choose_view(0, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
    assert chosen == [choose_view(0, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
    assert min(Counter(chosen).values()) > 400
    assert chosen != [choose_view(1, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
