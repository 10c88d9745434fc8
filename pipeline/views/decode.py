"""Image files: which are read, how they are turned, and that they are those that were seen before."""

import hashlib
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.core.errors import DatasetError
from pipeline.views.pyramid import Size

# Such a picture is taken as it is.
warnings.filterwarnings("ignore", "Corrupt EXIF data")
Image.init()
OPENCV = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "SUN", "TIFF", "WEBP")
FORMATS = [name for name in OPENCV if name in Image.OPEN]
"""What OpenCV reads, too, whatever a file's name ends in. Others of Pillow's 40 decoders start programs."""

# A picture that has as many pixels as are annotated is no decompression bomb.
Image.MAX_IMAGE_PIXELS = None

UNREADABLE = (OSError, EOFError, SyntaxError, ValueError, struct.error)
"""What Pillow raises, by format and place of the damage."""


def read_rgb(path: Path, expected_hw: Size, sha256: str = "") -> NDArray[np.uint8]:
    """Decode an image of the annotated size ``expected_hw``: ``(H, W, 3)``, as OpenCV does.

    Grayscale, palettes and CMYK are converted, transparency is left out, of 16 bits the upper 8 are taken,
    and a picture is turned as its EXIF orientation says. A ``DatasetError`` is raised if it is missing,
    unreadable, moving, or of another size or ``sha256`` (if there is one) than the manifest has.
    """
    with _opened(path) as (content, image):
        if sha256 and hashlib.sha256(content).hexdigest() != sha256:
            raise DatasetError(
                f"{path}: expected the image that prepare_data has seen (sha256 {sha256[:12]}...), but it is "
                "another one now; put it back, or run `dvc repro --force --single-item prepare_data`, then "
                "`dvc repro`"
            )
        orientation = _check(image, content, path, expected_hw)
        pixels = _to_rgb(image)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels


def inspect_image(path: Path, expected_hw: Size) -> tuple[str, bool]:
    """The sha256 of an image's file, and whether EXIF turns it; not decoded, else as :func:`read_rgb`."""
    with _opened(path) as (content, image):
        return hashlib.sha256(content).hexdigest(), _check(image, content, path, expected_hw) != 1


@contextmanager
def _opened(path: Path) -> Iterator[tuple[bytes, Image.Image]]:
    if not path.is_file():
        raise DatasetError(f"{path}: expected an image, but there is none")
    content = b""
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            yield content, image
    except UnidentifiedImageError as error:  # such as a pointer of Git LFS
        raise DatasetError(
            f"{path}: expected an image, but it cannot be read as any of {', '.join(FORMATS)}; it "
            f"begins with {content[:24]!r}"
        ) from error
    except UNREADABLE as error:
        raise DatasetError(f"{path}: expected an image, but it cannot be read ({error})") from error


def _check(image: Image.Image, content: bytes, path: Path, expected_hw: Size) -> int:
    """The EXIF orientation, 1 to 8, of what must be one picture of the expected size."""
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1  # a camera's is with a preview
    if frames > 1 or image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise DatasetError(
            f"{path}: expected a still image of 8 or 16 bits a channel, but got {frames} frames of mode "
            f"{image.mode}; save the one that is meant as such"
        )
    size_hw, orientation, turned = (image.height, image.width), 1, ""
    # Before anything is decoded: a file of a few KB can hold more pixels than the memory.
    if expected_hw in (size_hw, size_hw[::-1]):
        orientation = _orientation(image, content)
    if orientation >= 5:
        size_hw = size_hw[::-1]
        turned = (
            f" as EXIF orientation {orientation} turns it; exchange width and height in the annotations if "
            "its boxes are those of the upright picture, else take the orientation out of the file"
        )
    if size_hw != expected_hw:
        raise DatasetError(
            f"{path}: expected an image of (height, width) = {expected_hw}, but got {size_hw}{turned}"
        )
    return orientation


def _orientation(image: Image.Image, content: bytes) -> int:
    """As OpenCV takes it: ``getexif`` would read XMP, too; a TIFF is turned by Pillow, or by neither."""
    exif = Image.Exif()
    if image.format in ("JPEG", "MPO", "PNG", "WEBP"):
        with suppress(*UNREADABLE):
            exif.load(_png_exif(content) if image.format == "PNG" else image.info.get("exif", b""))
    orientation = exif.get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _png_exif(content: bytes) -> bytes:
    """The chunk eXIf, which ExifTool writes behind the pixels; Pillow would decode these first."""
    place = 8
    while place < len(content):
        size, kind = struct.unpack_from(">I4s", content, place)
        if kind == b"eXIf":
            return content[place + 8 : place + 8 + size]
        place += size + 12
    return b""


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # Pillow would clip these to white
        upper = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(upper[:, :, None], 3, axis=2)
    if image.mode == "P":  # or Pillow warns of a palette with transparency
        image = image.convert("RGBA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
