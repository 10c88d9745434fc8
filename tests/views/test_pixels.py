"""What a store remembers of pixels; oracles are loops."""

import numpy as np
import pytest

from pipeline.views.pixels import SeenPixels, checksum, thumbnail

CASTAGNOLI = 0x82F63B78


def crc32c_by_hand(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ CASTAGNOLI * (value & 1)
    return value ^ 0xFFFFFFFF


def test_checksum_is_of_the_pixels_row_by_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    in_order = bytes(int(pixels[y, x, c]) for y in range(3) for x in range(5) for c in range(3))
    assert checksum(pixels) == crc32c_by_hand(in_order)
    other_layout = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert checksum(other_layout) == checksum(pixels)


@pytest.mark.parametrize("size", [(8, 8), (64, 96), (75, 100), (9, 31), (3, 40)])
def test_a_thumbnail_is_the_means_of_its_cells(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    cells = thumbnail(pixels)
    assert (cells.shape, cells.dtype) == ((8, 8, 3), np.uint8)
    for row in range(8):
        for column in range(8):
            top, bottom = row * size[0] // 8, max((row + 1) * size[0] // 8, row * size[0] // 8 + 1)
            left, right = column * size[1] // 8, max((column + 1) * size[1] // 8, column * size[1] // 8 + 1)
            exact = pixels[top:bottom, left:right].astype(float).mean((0, 1))
            assert (np.abs(cells[row, column] - exact) <= 0.5 + 1e-9).all()


def test_a_white_image_does_not_overflow() -> None:
    seen = SeenPixels.of(np.full((600, 800, 3), 255, np.uint8))
    assert (seen.thumbnail == 255).all()
