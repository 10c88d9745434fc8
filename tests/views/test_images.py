"""Images: every kind that COCO has, as OpenCV reads, turns and resizes it, and what a store remembers of it.

Refusals that a stage shows are rows of ``tests/e2e/wrong_input.txt``. ``LD_COCO_SAMPLE`` may name a folder in
COCO layout with real photos.
"""

import dataclasses
import hashlib
import math
import os
import unicodedata
from pathlib import Path
from zlib import crc32

import cv2
import google_crc32c
import numpy as np
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import ExifTags, Image

from pipeline.core.errors import DatasetError
from pipeline.datasets.coco import read_coco
from pipeline.views.conventions import GFL_PREPROCESSING, Sampling
from pipeline.views.decode import inspect_image
from pipeline.views.geometry import ViewsConfig
from pipeline.views.images import normalize_images, read_image, resize_image, stack_images
from pipeline.views.manifest import ImageRecord, ImageTable, Manifest
from pipeline.views.types import SeenPixels, checksum

SAMPLE = os.environ.get("LD_COCO_SAMPLE")


def opencv(path: Path) -> NDArray[np.int64]:
    """What mmdetection trains on, ``(H, W, 3)`` in RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(int)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def ramp(*shape: int) -> NDArray[np.uint16]:
    return np.linspace(0, 65535, math.prod(shape)).astype(np.uint16).reshape(shape)


def save_palette(path: Path) -> None:
    """Of 16 colors, each of its own transparency."""
    image = Image.fromarray((ramp(24, 32, 3) >> 8).astype(np.uint8)).quantize(16)
    image.save(path, transparency=bytes(range(0, 160, 10)))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("gray.png", lambda path: cv2.imwrite(str(path), (ramp(24, 32) >> 8).astype(np.uint8))),
        ("gray_16_bits.png", lambda path: cv2.imwrite(str(path), ramp(24, 32))),
        ("color_16_bits.png", lambda path: cv2.imwrite(str(path), ramp(24, 32, 3))),
        ("gray_16_bits.tif", lambda path: cv2.imwrite(str(path), ramp(24, 32))),
        ("transparent.png", lambda path: cv2.imwrite(str(path), (ramp(24, 32, 4) >> 8).astype(np.uint8))),
        ("palette.png", save_palette),
        ("gray.jpg", lambda path: Image.new("L", (32, 24), 200).save(path)),
        ("cmyk.jpg", lambda path: Image.new("CMYK", (32, 24)).save(path)),
        ("broken_exif.jpg", lambda path: Image.new("L", (32, 24)).save(path, exif=b"Exif\0\0no such thing")),
        ("two_colors.png", lambda path: Image.fromarray(ramp(24, 32) > 30000).save(path)),
    ],
)
def test_unusual_images_are_read_as_opencv_reads_them(tmp_path: Path, name: str, save) -> None:
    save(tmp_path / name)
    pixels = read_image(tmp_path / name, (24, 32)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, opencv(tmp_path / name))
    assert name.endswith(".jpg") or pixels.max() > pixels.min(), "not all white"


def test_the_first_image_of_a_cameras_file_is_taken(tmp_path: Path) -> None:
    """An MPO is a JPEG that is followed by its preview."""
    first, preview = (Image.new("RGB", (20, 10), color) for color in ("red", "blue"))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    assert read_image(tmp_path / "a.jpg", (10, 20)).float().mean((1, 2)).round().tolist() == [254, 0, 0]


def test_a_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.effect_noise((64, 64), 90).save(path)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(DatasetError, match=r"cut\.jpg: expected an image, but it cannot be read"):
        read_image(path, (64, 64))


def test_a_batch_is_normalized_inside_and_zero_outside() -> None:
    images = [torch.full((3, 20, 40), 100, dtype=torch.uint8), torch.zeros(3, 32, 32, dtype=torch.uint8)]
    batch = normalize_images(*stack_images(images, (32, 64)), GFL_PREPROCESSING)
    assert batch.shape == (2, 3, 32, 64)
    assert batch[0, 1, 5, 5].item() == pytest.approx((100 - 116.28) / 57.12)
    assert batch[0, :, 20:].abs().max() == 0
    assert batch[0, :, :, 40:].abs().max() == 0
    assert batch[1, :, :, 32:].abs().max() == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9])
def test_pictures_are_turned_as_opencv_turns_them(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    corners = np.zeros((24, 40, 3), np.uint8)
    corners[:8, :12], corners[16:, :12], corners[:8, 28:] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    Image.fromarray(corners).save(path, kind, exif=turned(orientation), lossless=True, quality=100)
    expected = opencv(path)
    pixels = read_image(path, expected.shape[:2]).permute(1, 2, 0).numpy().astype(int)
    assert np.abs(pixels - expected).max() <= 4
    assert inspect_image(path, expected.shape[:2])[1] == (1 < orientation < 9)


def test_an_orientation_behind_the_pixels_of_a_png_turns_it_as_opencv_does(tmp_path: Path) -> None:
    """Where ExifTool writes it; a PNG is a signature and chunks: size, kind, content, checksum."""
    path = tmp_path / "a.png"
    Image.fromarray((ramp(4, 8, 3) >> 8).astype(np.uint8)).save(path)
    content, chunk = path.read_bytes(), b"eXIf" + turned(6).tobytes()[6:]
    end = content.rindex(b"IEND") - 4
    chunk = (len(chunk) - 4).to_bytes(4) + chunk + crc32(chunk).to_bytes(4)
    path.write_bytes(content[:end] + chunk + content[end:])
    assert opencv(path).shape == (8, 4, 3)
    np.testing.assert_array_equal(read_image(path, (8, 4)).permute(1, 2, 0), opencv(path))


def test_an_annotated_size_of_the_picture_before_it_is_turned_is_explained(tmp_path: Path) -> None:
    """As an annotation tool leaves it that shows the picture upright and reads its size from the file."""
    Image.new("RGB", (40, 24)).save(tmp_path / "a.jpg", exif=turned(6))
    with pytest.raises(DatasetError, match=r"got \(40, 24\) as EXIF orientation 6 turns it; exchange"):
        inspect_image(tmp_path / "a.jpg", (24, 40))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TGA", "ICO"])
def test_no_other_decoder_is_given_a_file_whatever_its_name(tmp_path: Path, kind: str) -> None:
    """Pillow would have Ghostscript run a PostScript file."""
    Image.new("RGB", (32, 32)).save(tmp_path / "a.bmp", kind)
    with pytest.raises(DatasetError, match=r"a\.bmp: .*cannot be read as any of .*JPEG"):
        read_image(tmp_path / "a.bmp", (32, 32))


def test_pictures_larger_than_pillows_limit_are_read(tmp_path: Path) -> None:
    Image.new("1", (18_000, 10_000)).save(tmp_path / "a.png")
    assert inspect_image(tmp_path / "a.png", (10_000, 18_000))[1] is False


def test_names_are_found_however_their_accents_are_spelled(tmp_path: Path) -> None:
    record = ImageRecord(image_id=1, file_name="", height=1, width=1, annotations=())
    manifest = Manifest(root=str(tmp_path), folder="", categories=(), images=ImageTable.of([]))
    composed, decomposed = (unicodedata.normalize(form, "zoë/ä.png") for form in ("NFC", "NFD"))
    assert manifest.image_path(replace(record, file_name=composed)) == tmp_path / composed, "none is there"
    for on_disk, named in ((composed, decomposed), (decomposed, composed)):
        folder = tmp_path / on_disk.encode().hex()
        (folder / on_disk).parent.mkdir(parents=True)
        (folder / on_disk).touch()
        there = dataclasses.replace(manifest, folder=folder.name)
        assert there.image_path(replace(record, file_name=named)).is_file()


@pytest.mark.skipif(SAMPLE is None, reason="LD_COCO_SAMPLE names no COCO-layout folder with real photos")
def test_real_photos_are_decoded_and_resized_as_by_opencv() -> None:
    manifest = read_coco(Path(str(SAMPLE)) / "annotations/instances_val.json", str(SAMPLE), "val")
    decoded = []
    for record in manifest.images[:16]:
        path, size_hw, _ = manifest.image_file(record)
        pixels = read_image(path, size_hw)
        view = ViewsConfig(scales=((1333, 800),), flips=(False,)).geometry(size_hw, 0, 0)
        image, view_hw = pixels.permute(1, 2, 0).numpy(), view.resized_hw
        decoded.append(np.abs(image - opencv(path)).mean())
        resized = cv2.resize(image, view_hw[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
        assert np.abs(resize_image(pixels, view_hw).permute(1, 2, 0).numpy() - resized).max() <= 1
    # Both decode with libjpeg-turbo; builds differ in rounding of the inverse transform at most.
    assert np.mean(decoded) < 0.5


@pytest.mark.parametrize(
    ("sampling", "digest"), [("half_pixel", "63765c60219fdcde"), ("corner", "1a44655f90c00c04")]
)
def test_pixels_depend_neither_on_threads_nor_on_the_processor(sampling: Sampling, digest: str) -> None:
    pixels = torch.from_numpy((np.arange(3 * 97 * 131).reshape(3, 97, 131) ** 2 % 251).astype(np.uint8))
    threads, digests = torch.get_num_threads(), set()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        view = resize_image(pixels, (123, 211), sampling)
        digests.add(hashlib.sha256(view.numpy().tobytes()).hexdigest()[:16])
    torch.set_num_threads(threads)
    assert digests == {digest}


def test_a_checksum_is_of_the_pixels_row_by_row() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    other_layout = np.ascontiguousarray(pixels.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert checksum(pixels) == checksum(other_layout) == google_crc32c.value(pixels.tobytes())
    assert google_crc32c.value(b"123456789") == 0xE3069283, "Castagnoli's"


@pytest.mark.parametrize("size", [(8, 8), (64, 96), (75, 100), (9, 31), (3, 40), (600, 800)])
def test_a_thumbnail_is_the_means_of_its_cells(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(160, 256, (*size, 3), np.uint8)
    cells = SeenPixels.of(pixels).thumbnail
    assert (cells.shape, cells.dtype) == ((8, 8, 3), np.uint8)
    tops, lefts = ([place * side // 8 for place in range(9)] for side in size)
    for row, column in np.ndindex(8, 8):
        bottom, right = max(tops[row + 1], tops[row] + 1), max(lefts[column + 1], lefts[column] + 1)
        exact = pixels[tops[row] : bottom, lefts[column] : right].astype(float).mean((0, 1))
        assert (np.abs(cells[row, column] - exact) <= 0.5 + 1e-9).all()
