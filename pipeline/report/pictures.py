"""Images with boxes or points over them, as plain values that the template draws as SVG."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

MAX_STORED_PX = 480
"""Long edge of an embedded image."""

PNG_PIXELS = 200 * 200
"""Up to this many pixels an image is embedded without loss; a photograph becomes JPEG."""

JPEG_QUALITY = 85

CHARACTER_WIDTH = 0.6
"""Of a label's characters, in font sizes."""

LABEL_FONT = 10.0
LABEL_HEIGHT = 14.0
LABEL_PADDING = 4.0
"""Labels, in px of the shown picture."""

Rectangle = tuple[float, float, float, float]
"""x, y, width, height."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An embedded image, and how large it is shown."""

    uri: str
    width: float
    height: float
    scale: float
    """Shown px over px of the coordinates that are drawn on it."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box to draw, in shown px."""

    box: Rectangle
    color: str
    text: str
    """Its label; empty draws none."""
    tag: tuple[float, float, float] | None
    """Left, top and width of its label; ``None`` if there is no room."""


def embed_picture(pixels: Tensor, shown: float) -> Picture:
    """Embed ``ByteTensor[3, H, W]`` so that it is shown with a long edge of ``shown`` px."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    width, height = image.size
    scale = shown / max(width, height)
    if max(width, height) > MAX_STORED_PX:
        factor = MAX_STORED_PX / max(width, height)
        image = image.resize(
            (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.LANCZOS
        )
    return Picture(uri=data_uri(image), width=width * scale, height=height * scale, scale=scale)


def data_uri(image: Image.Image) -> str:
    """An image as the text that a page can hold."""
    content = io.BytesIO()
    kind = "png" if image.width * image.height <= PNG_PIXELS else "jpeg"
    if kind == "png":
        image.save(content, "PNG", optimize=True)
    else:
        image.save(content, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def crop(pixels: Tensor, box_xyxy: NDArray[np.floating], margin: float) -> tuple[Tensor, NDArray[np.float64]]:
    """The square around a box, ``margin`` of its longer side wider on each side, as far as the image goes.

    Returns:
        ``ByteTensor[3, h, w]`` and the (2,) offset ``(x, y)`` of its corner, px.
    """
    height, width = pixels.shape[1:]
    x1, y1, x2, y2 = (float(value) for value in box_xyxy)
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    left, right = _span((x1 + x2) / 2, half, width)
    top, bottom = _span((y1 + y2) / 2, half, height)
    return pixels[:, top:bottom, left:right], np.array([left, top], np.float64)


def _span(center: float, half: float, limit: int) -> tuple[int, int]:
    """A run of pixels around ``center``, moved rather than cut where it would leave the image."""
    length = min(limit, max(1, int(np.ceil(2 * half))))
    start = int(np.clip(round(center - half), 0, limit - length))
    return start, start + length


def place_marks(
    boxes_xywh: Sequence[Rectangle], colors: Sequence[str], texts: Sequence[str], picture: Picture
) -> list[Mark]:
    """Boxes in shown px, each with its label where it fits without covering another one."""
    taken: list[Rectangle] = []
    marks = []
    for box, color, text in zip(boxes_xywh, colors, texts, strict=True):
        x, y, width, height = (value * picture.scale for value in box)
        tag = _free_place((x, y, width, height), _label_width(text), picture, taken) if text else None
        if tag:
            taken.append(tag)
        marks.append(Mark(box=(x, y, width, height), color=color, text=text, tag=tag[:3] if tag else None))
    return marks


def _label_width(text: str) -> float:
    return len(text) * CHARACTER_WIDTH * LABEL_FONT + LABEL_PADDING


def _free_place(
    box: Rectangle, width: float, picture: Picture, taken: Sequence[Rectangle]
) -> Rectangle | None:
    """The first place at a box's edges that lies in the picture and overlaps no other label."""
    x, y, box_width, box_height = box
    lefts = (x, x + box_width - width)
    tops = (y - LABEL_HEIGHT, y + box_height, y, y + box_height - LABEL_HEIGHT)
    for top in tops:
        for left in lefts:
            moved = min(max(left, 0.0), picture.width - width)
            place = (moved, top, width, LABEL_HEIGHT)
            inside = moved >= 0 and 0 <= top <= picture.height - LABEL_HEIGHT
            if inside and not any(_overlap(place, other) for other in taken):
                return place
    return None


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


PALETTE = (
    "#d1495b",
    "#0072b2",
    "#2a9d5c",
    "#c77700",
    "#7b4fb5",
    "#00889a",
    "#b5367f",
    "#6b6f1a",
    "#8c4a2f",
    "#4a5fc1",
)
"""Class colors: dark enough for white text on them."""


def class_colors(category_ids: Iterable[int]) -> dict[int, str]:
    """Colors of the categories in a set of pictures; all different for up to ``len(PALETTE)`` of them."""
    return {
        category: PALETTE[place % len(PALETTE)] for place, category in enumerate(sorted(set(category_ids)))
    }
