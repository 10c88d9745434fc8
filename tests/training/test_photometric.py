"""Changes of colors: drawn from seed, epoch and image alone, and nothing but colors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from teacher_cases import small_view_set
from torchvision.transforms.v2 import functional
from training_cases import FULL, HERE, IMAGES, PLAIN, loader_of, student, taught

from pipeline.losses.config import DistillationConfig
from pipeline.training.config import PhotometricConfig
from pipeline.training.dataset import augment

ALL = PhotometricConfig(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur=1.5)


def noise(height: int = 48, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1)).byte()


def test_nothing_is_changed_unless_asked_for_and_equal_keys_change_equally() -> None:
    pixels = noise()
    assert augment(pixels, PhotometricConfig(), "0/0/1") is pixels
    once, twice, other = (augment(pixels, ALL, key) for key in ("0/0/1", "0/0/1", "0/1/1"))
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)
    assert (once.shape, once.dtype) == (pixels.shape, torch.uint8)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue", "blur"])
def test_each_change_is_within_its_amount(name: str) -> None:
    """None of 64 draws leaves what the extremes make of a pixel."""
    pixels = noise(8, 8)
    amount = 2.0 if name == "blur" else 0.25
    config = PhotometricConfig(**{name: amount})
    drawn = torch.stack([augment(pixels, config, str(key)) for key in range(64)])
    assert len(drawn.unique(dim=0)) > 8
    if name == "brightness":
        low, high = (functional.adjust_brightness(pixels, factor) for factor in (0.75, 1.25))
        assert bool((drawn >= low).all() and (drawn <= high).all())
        assert bool((drawn.amin(0) < pixels).any() and (drawn.amax(0) > pixels).any())


def test_a_picture_of_one_row_can_be_blurred() -> None:
    assert augment(noise(1, 40), PhotometricConfig(blur=5.0), "0").shape == (3, 1, 40)


def test_what_is_drawn_depends_on_seed_epoch_and_image(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []
    monkeypatch.setattr(
        "pipeline.training.dataset.augment", lambda pixels, _config, key: (keys.append(key), pixels)[1]
    )
    taught(student(FULL, epochs=2, seed=5, photometric=ALL), stores)
    images = [record.image_id for record in small_view_set(stores, IMAGES).manifest.images]
    assert sorted(keys) == sorted(f"5/{epoch}/{image}/colors" for epoch in (0, 1) for image in images)


def test_twins_see_the_same_pixels_in_every_epoch_and_process_and_others_without_it(stores: Path) -> None:
    def epochs(
        loss: DistillationConfig, workers: int, photometric: PhotometricConfig | None = ALL
    ) -> list[torch.Tensor]:
        config = student(loss, epochs=2, photometric=photometric)
        loader = loader_of(config, stores, replace(HERE, workers=workers))
        return [batch.pixels for epoch in (0, 1) for step in loader.epoch(epoch) for batch in step]

    bare = epochs(FULL, 0, None)
    for twins in zip(epochs(PLAIN, 0), epochs(FULL, 0), epochs(FULL, 2), bare, strict=True):
        assert [torch.equal(twins[0], other) for other in twins[1:]] == [True, True, False]
