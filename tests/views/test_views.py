"""Views: geometry by hand, boxes and pixels that move together, choices that depend on the key alone."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import to_builtins
from msgspec.structs import replace

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.geometry import (
    PerEpochViewsConfig,
    ViewGeometry,
    ViewsConfig,
    choose_view,
    pad_size,
    resize_keep_ratio,
    transform_boxes,
)
from pipeline.views.images import apply_view


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
    assert resize_keep_ratio(original, scale) == resized


def test_every_scale_comes_with_every_flip() -> None:
    config = ViewsConfig(scales=((100, 60), (50, 40)), flips=(False, True))
    views = [config.geometry((50, 100), 1, number) for number in config.numbers]
    assert [(view.resized_hw, view.flip) for view in views] == [
        ((50, 100), False),
        ((50, 100), True),
        ((25, 50), False),
        ((25, 50), True),
    ]


@pytest.mark.parametrize("scales", [(), ((30, 50),), ((50, 0),)])
def test_impossible_scales_are_refused(scales: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ConfigError):
        structure(ViewsConfig, {"scales": scales, "flips": [False]}, "views")


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


def test_a_view_is_chosen_by_seed_epoch_and_image_alone_and_all_are_about_as_frequent() -> None:
    chosen = [choose_view(0, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
    assert chosen == [choose_view(0, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
    assert min(Counter(chosen).values()) > 400
    assert chosen != [choose_view(1, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]


PUBLISHED = PerEpochViewsConfig(
    epochs=24, long_edge=1333, short_edges=(480, 800), flip_probability=0.5, seed=0
)


def test_short_edges_of_all_epochs_are_uniform_and_half_of_the_views_are_flipped() -> None:
    """Of 24,000 views, each of the 321 edges is expected 75 times (deviation 8.6); 12,000 flips (77)."""
    views = [PUBLISHED.geometry((600, 800), image, epoch) for image in range(1000) for epoch in range(24)]
    edges = Counter(min(view.resized_hw) for view in views)
    assert sorted(edges) == list(range(480, 801))
    assert 75 - 5 * 8.6 < min(edges.values()) <= max(edges.values()) < 75 + 5 * 8.6
    assert abs(sum(view.flip for view in views) - 12_000) < 5 * 77


def test_edge_and_flip_are_drawn_independently() -> None:
    views = [PUBLISHED.geometry((600, 800), image, epoch) for image in range(500) for epoch in range(24)]
    large = [view.flip for view in views if min(view.resized_hw) > 640]
    assert abs(sum(large) / len(large) - 0.5) < 0.04


def test_the_long_edge_holds_for_wide_images() -> None:
    views = [PUBLISHED.geometry((300, 900), 1, epoch) for epoch in range(24)]
    assert max(max(view.resized_hw) for view in views) == 1333
    assert all(view.padded_hw == pad_size(view.resized_hw) for view in views)


def test_a_view_is_drawn_from_seed_epoch_and_image_alone() -> None:
    again = replace(PUBLISHED)
    other = replace(PUBLISHED, seed=1)
    longer = replace(PUBLISHED, epochs=36)
    views = [
        [view_set.geometry((600, 800), 7, e) for e in range(24)] for view_set in (PUBLISHED, again, longer)
    ]
    assert views[0] == views[1] == views[2]
    assert views[0] != [other.geometry((600, 800), 7, e) for e in range(24)]
    assert views[0] != [PUBLISHED.geometry((600, 800), 8, e) for e in range(24)]


def test_an_epoch_trains_on_the_view_of_its_number() -> None:
    assert [PUBLISHED.choose(seed, 5, image) for seed in (0, 1) for image in (3, 4)] == [5] * 4
    with pytest.raises(ConfigError, match="epoch 24: expected one of the 24 epochs"):
        PUBLISHED.choose(0, 24, 3)


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"short_edges": (800, 480)}, {"short_edges": (480, 1400)}, {"flip_probability": 1.5}],
)
def test_impossible_draws_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"views\.{next(iter(change))}: expected"):
        structure(PerEpochViewsConfig, {**to_builtins(PUBLISHED), **change}, "views")
