"""A foreign loader's pixels against the store's thumbnail: each fault by its name, and no false alarm."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from store_cases import StoreCase, make_store_case, write_store

from pipeline.core.errors import CacheError, DatasetError
from pipeline.store.reader.reader import TargetStore
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.types import SeenPixels, ViewKey

MEAN, STD = np.array(GFL_PREPROCESSING.mean), np.array(GFL_PREPROCESSING.std)
HEIGHT, WIDTH = 75, 100
"""Of every view of ``store_cases``."""

Pixels = NDArray[np.uint8]
Values = NDArray[np.floating]


def picture(seed: int) -> Pixels:
    """Smooth colored patches, some noise: four times as large as the view."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(20, 236, (5, 6, 3)).astype(np.float32)
    smooth = cv2.resize(patches, (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def view_of(original: Pixels) -> Pixels:
    return np.asarray(cv2.resize(original, (WIDTH, HEIGHT)), np.uint8)


def normalized(pixels: NDArray[np.generic]) -> Values:
    """``(3, H, W)``."""
    return ((pixels.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def store_case() -> StoreCase:
    """Stored views, each of a picture of its own."""
    store_case = make_store_case()
    seen = [SeenPixels.of(view_of(picture(number))) for number in range(len(store_case.views))]
    targets = [replace(soft, pixels=pixels) for soft, pixels in zip(store_case.targets, seen, strict=True)]
    return replace(store_case, targets=targets, schema=replace(store_case.schema, pixels=True))


@pytest.fixture(scope="module")
def store(store_case: StoreCase, tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return TargetStore.open(write_store(tmp_path_factory.mktemp("pixels"), store_case))


def moved(pixels: Pixels, scale: float, x: float, y: float) -> Values:
    matrix = np.array([[scale, 0, x], [0, scale, y]], np.float64)
    return normalized(cv2.warpAffine(pixels, matrix, (WIDTH, HEIGHT)))


def in_range(pixels: Pixels, low: float, high: float) -> Values:
    return pixels.transpose(2, 0, 1) / 255 * (high - low) + low


UNNORMALIZED = r"not normalized as expected \(gray level = "
NEARLY_08 = r"0\.(79|80|81)"
FAULTS: dict[str, tuple[Callable[[Pixels], Values], str]] = {
    "mirrored": (lambda p: normalized(p[:, ::-1]), "mirrored"),
    "BGR, normalized as RGB": (lambda p: normalized(p[..., ::-1]), "red and blue swapped"),
    "channels swapped after normalization": (lambda p: normalized(p)[::-1], "red and blue swapped"),
    "mirrored BGR": (lambda p: normalized(p[:, ::-1, ::-1]), "mirrored and red and blue swapped"),
    "0 to 255": (lambda p: in_range(p, 0, 255), UNNORMALIZED + r"\[1.0"),
    "0 to 1": (lambda p: in_range(p, 0, 1), UNNORMALIZED + r"\[25[3-7]"),
    "-1 to 1": (lambda p: in_range(p, -1, 1), UNNORMALIZED + r"\[12[6-9]"),
    "mean and std of BGR": (
        lambda p: ((p - MEAN[::-1]) / STD[::-1]).transpose(2, 0, 1),
        UNNORMALIZED + r"\[57.\d, 57.\d, 58.\d\]",
    ),
    "shifted": (lambda p: moved(p, 1, 3, -2), r"shifted by \((3.0|2.9|3.1), -(2.0|1.9|2.1)\) px"),
    "smaller": (lambda p: moved(p, 0.8, 0, 0), rf"scaled by \({NEARLY_08}, {NEARLY_08}\) and"),
    "upside down": (lambda p: normalized(p[::-1]), "like another image"),
    "another": (lambda _: normalized(view_of(picture(99))), "like another image"),
    "cut off": (lambda p: normalized(p)[:, :, :90], r"cut off: of \(75, 90\) px, where the view has"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("number", [0, 6, 13])
def test_a_fault_is_named(store: TargetStore, store_case: StoreCase, fault: str, number: int) -> None:
    change, words = FAULTS[fault]
    key = store_case.views[number].key
    expected = f"image_id={key.image_id}, view={key.view}: expected the pixels .*, but these look {words}"
    with pytest.raises(DatasetError, match=expected):
        store.check_pixels(key, change(view_of(picture(number))))


@pytest.mark.parametrize("interpolation", [cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC])
def test_another_resize_and_padding_pass(
    store: TargetStore, store_case: StoreCase, interpolation: int
) -> None:
    for number, view in enumerate(store_case.views):
        pixels = cv2.resize(picture(number), (WIDTH, HEIGHT), interpolation=interpolation)
        padded = np.pad(normalized(pixels), ((0, 0), (0, 21), (0, 28)))
        store.check_pixels(view.key, padded)
        store.check_pixels(view.key, pixels.transpose(2, 0, 1))


def test_training_wants_the_very_pixels(store: TargetStore, store_case: StoreCase) -> None:
    for number, view in enumerate(store_case.views):
        assert store.changed_pixels(view.key, view_of(picture(number))) is None
    pixels, key = view_of(picture(6)), store_case.views[6].key
    changed = pixels.copy()
    changed[40, 50, 1] ^= 1
    assert store.changed_pixels(key, changed) == (
        "like another version of it: changed in details, or decoded otherwise"
    )
    assert store.changed_pixels(key, pixels[:, ::-1]) == "mirrored"


def test_an_older_store_compares_nothing(tmp_path: Path) -> None:
    old = TargetStore.open(write_store(tmp_path, make_store_case()))
    assert old.changed_pixels(ViewKey(10, 0), view_of(picture(0))) is None
    with pytest.raises(CacheError, match="expected a store with thumbnails"):
        old.check_pixels((10, 0), normalized(view_of(picture(0))))


def test_no_pixels_another_shape_and_numbers_that_are_none_are_refused(
    store: TargetStore, tmp_path: Path
) -> None:
    half = normalized(view_of(picture(0)))
    half[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"finite pixels \(image_id=10, view=0\), but 1 of 22500 values"):
        store.check_pixels((10, 0), half)
    with pytest.raises(ValueError, match=r"expected \(3, H, W\), but got \(75, 100, 3\)"):
        store.check_pixels((10, 0), view_of(picture(0)))
    blind = make_store_case()
    with pytest.raises(ValueError, match="expected the pixels that the teacher saw, but got none"):
        write_store(tmp_path, replace(blind, schema=replace(blind.schema, pixels=True)))
