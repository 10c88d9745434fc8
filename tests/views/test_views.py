"""Views: geometry by hand, boxes and pixels that move together, choices that depend on the key alone."""

from collections import Counter

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from pipeline.core.errors import ConfigError
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.geometry import (
    PerEpochViewsConfig,
    ResizeMode,
    ViewGeometry,
    ViewsConfig,
    choose_view,
    transform_boxes,
)
from pipeline.views.images import apply_view

SIZE = (600, 800)
PUBLISHED = PerEpochViewsConfig(epochs=24, long_edge=1333, short_edges=(480, 800), flip_probability=0.5)


@pytest.mark.parametrize(
    ("original", "resized", "padded"),
    [
        ((480, 640), (800, 1067), (800, 1088)),  # the short edge decides
        ((300, 900), (444, 1333), (448, 1344)),  # the long edge decides
        ((1, 3000), (1, 1333), (32, 1344)),  # something is left
    ],
)
def test_every_scale_comes_with_every_flip(
    original: tuple[int, int], resized: tuple[int, int], padded: tuple[int, int]
) -> None:
    config = ViewsConfig(scales=((100, 60), (1333, 800)), flips=(False, True))
    views = [config.geometry(original, 1, number) for number in config.numbers]
    assert [view.flip for view in views] == [False, True] * 2
    assert [(view.resized_hw, view.padded_hw) for view in views[2:]] == [(resized, padded)] * 2


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("fit", "resized", "content"),
    [
        ("keep_ratio", (40, 60), (0, 0, 60, 40)),
        ("keep_ratio", (80, 120), (0, 0, 120, 80)),
        ("stretch", (96, 96), (0, 0, 96, 96)),
        ("letterbox", (96, 96), (0, 0, 96, 64)),
        ("letterbox_centred", (96, 96), (0, 16, 96, 80)),
    ],
)
def test_boxes_move_with_the_pixels_and_stay_in_the_image(
    fit: ResizeMode, resized: tuple[int, int], content: tuple[int, int, int, int], flip: bool
) -> None:
    """A bright rectangle in the image is found in the view where its box says, and gray around the image."""
    gray = 100 if "letterbox" in fit else None
    view = ViewGeometry(original_hw=(40, 60), resized_hw=resized, padded_hw=resized, flip=flip, fit=fit)
    pixels = torch.zeros(3, 40, 60, dtype=torch.uint8)
    pixels[:, 10:20, 5:30] = 255
    seen = apply_view(pixels, view, replace(GFL_PREPROCESSING, fit=fit, fill=gray))[0]
    boxes = transform_boxes(np.array([[5, 10, 30, 20], [-5, -5, 70, 50]], np.float32), view)
    (x1, y1, x2, y2), whole = boxes.tolist()
    assert whole == list(content)
    bright = (seen > 127).nonzero()
    assert bright.amin(dim=0).tolist() == pytest.approx([y1, x1], abs=0.6)
    assert (bright.amax(dim=0) + 1).tolist() == pytest.approx([y2, x2], abs=0.6)
    inside = seen[content[1] : content[3], content[0] : content[2]]
    assert (seen == 100).sum() >= seen.numel() - inside.numel()
    assert (tuple(seen.shape), tuple(inside.shape)) == (resized, view.content_hw)


def test_a_view_is_chosen_by_seed_epoch_and_image_alone_and_all_are_about_as_frequent() -> None:
    chosen, again, other = (
        [choose_view(seed, epoch, image, (0, 1)) for epoch in range(20) for image in range(50)]
        for seed in (0, 0, 1)
    )
    assert chosen == again != other
    assert min(Counter(chosen).values()) > 400


def test_short_edges_of_all_epochs_are_uniform_and_half_of_the_views_are_flipped() -> None:
    """Of 24,000 views, each of the 321 edges is expected 75 times (deviation 8.6), half of all flipped."""
    views = [PUBLISHED.geometry(SIZE, image, epoch) for image in range(1000) for epoch in range(24)]
    edges = Counter(min(view.resized_hw) for view in views)
    assert sorted(edges) == list(range(480, 801))
    assert 75 - 5 * 8.6 < min(edges.values()) <= max(edges.values()) < 75 + 5 * 8.6
    for part in (views, [view for view in views if min(view.resized_hw) > 640]):
        assert abs(sum(view.flip for view in part) / len(part) - 0.5) < 5 * 0.5 / len(part) ** 0.5


def test_a_view_is_drawn_from_seed_epoch_and_image_alone() -> None:
    first, longer, reseeded, other = (
        [config.geometry(SIZE, image, epoch) for epoch in range(24)]
        for config, image in (
            (PUBLISHED, 7),
            (replace(PUBLISHED, epochs=36), 7),
            (replace(PUBLISHED, seed=1), 7),
            (PUBLISHED, 8),
        )
    )
    assert first == longer
    assert first not in (reseeded, other)


def test_an_epoch_trains_on_the_view_of_its_number() -> None:
    assert [PUBLISHED.choose(seed, 5, image) for seed in (0, 1) for image in (3, 4)] == [5] * 4
    with pytest.raises(ConfigError, match="epoch 24: expected one of the 24 epochs"):
        PUBLISHED.choose(0, 24, 3)
