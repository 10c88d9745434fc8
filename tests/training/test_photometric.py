"""Changes of colors: drawn from seed, epoch and image alone, and nothing but colors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from teacher_cases import small_view_set
from torchvision.transforms.v2 import functional
from training_cases import FULL, HERE, IMAGES, PLAIN, TRAIN, loader_of, same_weights, student, taught

from pipeline.training.config import PhotometricConfig
from pipeline.training.photometric import augment

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
    """Of 64 draws with half the amount that is allowed, none leaves what the extremes make of a pixel."""
    pixels = noise(8, 8)
    amount = 2.0 if name == "blur" else 0.25
    changes = {
        augment(pixels, PhotometricConfig(**{name: amount}), str(key)).numpy().tobytes() for key in range(64)
    }
    assert len(changes) > 8
    if name == "brightness":
        low, high = (functional.adjust_brightness(pixels, factor) for factor in (0.75, 1.25))
        drawn = torch.stack([augment(pixels, PhotometricConfig(brightness=0.25), str(k)) for k in range(64)])
        assert bool((drawn >= low).all() and (drawn <= high).all())
        assert bool((drawn.amin(0) < pixels).any() and (drawn.amax(0) > pixels).any())


def test_a_picture_of_one_row_can_be_blurred() -> None:
    assert augment(noise(1, 40), PhotometricConfig(blur=5.0), "0").shape == (3, 1, 40)


def test_what_is_drawn_depends_on_seed_epoch_and_image(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[str] = []

    def recorded(pixels: torch.Tensor, _config: PhotometricConfig, key: str) -> torch.Tensor:
        keys.append(key)
        return pixels

    monkeypatch.setattr("pipeline.training.dataset.augment", recorded)
    taught(student(FULL, epochs=2, seed=5, photometric=ALL), stores)
    images = [record.image_id for record in small_view_set(stores, IMAGES).manifest.images]
    assert sorted(keys) == sorted(f"5/{epoch}/{image}/colors" for epoch in (0, 1) for image in images)


def test_twins_see_the_same_pixels_in_every_epoch_and_process_and_others_in_another(stores: Path) -> None:
    def epochs(loss: object, workers: int, photometric: PhotometricConfig | None = ALL) -> list[torch.Tensor]:
        config = student(loss, epochs=2, photometric=photometric)  # type: ignore[arg-type]
        loader = loader_of(config, stores, replace(HERE, workers=workers))
        return [batch.pixels for epoch in (0, 1) for step in loader.epoch(epoch) for batch in step]

    plain, distilled, elsewhere, bare = (
        epochs(PLAIN, 0),
        epochs(FULL, 0),
        epochs(FULL, 2),
        epochs(FULL, 0, None),
    )
    for one, twin, decoded, original in zip(plain, distilled, elsewhere, bare, strict=True):
        assert torch.equal(one, twin)
        assert torch.equal(one, decoded)
        assert not torch.equal(one, original)


def test_a_student_is_another_with_it(stores: Path) -> None:
    with_it, without = (
        taught(student(FULL, photometric=photometric), stores).model for photometric in (ALL, None)
    )
    assert TRAIN.photometric is None
    assert not same_weights(with_it, without)
