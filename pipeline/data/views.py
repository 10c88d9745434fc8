"""Views: deterministic augmentations of an image, and which of them a student sees when.

Geometry follows mmdetection's ``Resize(keep_ratio=True)``, ``RandomFlip`` and ``Pad(size_divisor=32)``, or
gives every view one fixed size, as detectors with a fixed input want it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

PAD_MULTIPLE = 32
"""Each view is padded by itself to a multiple of this, px."""

LONGEST_PX = 2**14
"""Of a view: its teacher would take 64 GB."""

Boxes = NDArray[np.float32]

Fit = Literal["keep_ratio", "stretch", "letterbox", "letterbox_centred"]
"""How an image fills its view: ``keep_ratio`` resizes it into the scale, and the view has its size;
``stretch`` resizes it to the scale, whatever its ratio; the letterboxes give the view the size of the scale,
and put the image, ratio kept, into the upper left corner (YOLOX) or into the middle (YOLOv8)."""


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Enumerated views: every scale with every flip."""

    scales: tuple[tuple[int, int], ...]
    """``(long, short)`` edges in px that a view must fit into, ratio kept; with any other fit,
    ``(width, height)`` of the view."""
    flips: tuple[bool, ...]
    """Whether a view is mirrored horizontally."""

    def __post_init__(self) -> None:
        if not self.scales or not self.flips:
            raise ConfigError("expected at least one scale and one flip")
        for scale in self.scales:
            if not 0 < scale[1] <= scale[0] <= LONGEST_PX:
                raise ConfigError(
                    f"scales: expected (long, short) with {LONGEST_PX} >= long >= short > 0, but got {scale}"
                )

    @property
    def numbers(self) -> range:
        """Numbers of the views that every image has."""
        return range(len(self.scales) * len(self.flips))


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """One deterministic augmentation of one image; sizes are ``(height, width)`` px."""

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    """Of the view, with the borders of a letterbox."""
    padded_hw: tuple[int, int]
    flip: bool
    fit: Fit = "keep_ratio"

    @property
    def content_hw(self) -> tuple[int, int]:
        """Size of the image in the view, without the borders of a letterbox."""
        if self.fit in ("keep_ratio", "stretch"):
            return self.resized_hw
        return fit_into(self.original_hw, self.resized_hw)

    @property
    def content_top_left(self) -> tuple[int, int]:
        """``(y, x)`` of the image's corner in the view before a flip: not 0 in a centred letterbox."""
        if self.fit != "letterbox_centred":
            return 0, 0
        pairs = zip(self.resized_hw, self.content_hw, strict=True)
        top, left = ((view - content) // 2 for view, content in pairs)
        return top, left


def fit_size(original_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Size of an image resized, ratio kept, to fit into ``(long, short)``; it may be enlarged."""
    height, width = original_hw
    factor = min(scale[0] / max(height, width), scale[1] / min(height, width))
    # Of an image that is a thousand times as long as high, something must be left.
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def fit_into(original_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> tuple[int, int]:
    """Size of an image resized, ratio kept, to fit into a canvas of ``(height, width)``."""
    factor = min(canvas / side for canvas, side in zip(canvas_hw, original_hw, strict=True))
    height, width = (int(side * factor + 0.5) for side in original_hw)
    return height, width


def pad_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Size rounded up to multiples of ``PAD_MULTIPLE``."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in size_hw)
    return height, width


def enumerate_views(
    original_hw: tuple[int, int], config: ViewsConfig, fit: Fit = "keep_ratio"
) -> list[ViewGeometry]:
    """All views of an image; a view's number is its index in this list."""
    return [_view(original_hw, scale, fit, flip=flip) for scale in config.scales for flip in config.flips]


def _view(original_hw: tuple[int, int], scale: tuple[int, int], fit: Fit, *, flip: bool) -> ViewGeometry:
    # A detector of a fixed input gets just that, so nothing is padded there.
    keep = fit == "keep_ratio"
    resized = fit_size(original_hw, scale) if keep else (scale[1], scale[0])
    padded = pad_size(resized) if keep else resized
    return ViewGeometry(original_hw=original_hw, resized_hw=resized, padded_hw=padded, flip=flip, fit=fit)


def scale_factors(geometry: ViewGeometry) -> NDArray[np.float32]:
    """View px over original px for x1, y1, x2, y2: ``(4,)``."""
    vertical, horizontal = (
        new / old for new, old in zip(geometry.content_hw, geometry.original_hw, strict=True)
    )
    return np.array([horizontal, vertical, horizontal, vertical], np.float32)


def transform_boxes(boxes_xyxy: Boxes, geometry: ViewGeometry) -> Boxes:
    """Boxes ``(G, 4)`` of the original image in view coordinates, clipped to the view's content."""
    height, width = geometry.content_hw
    limits = np.asarray([width, height, width, height], np.float32)
    scaled: Boxes = np.clip(boxes_xyxy * scale_factors(geometry), np.float32(0), limits)
    scaled += np.asarray(2 * geometry.content_top_left[::-1], np.float32)
    if not geometry.flip:
        return scaled
    flipped = scaled.copy()
    flipped[:, 0] = geometry.resized_hw[1] - scaled[:, 2]
    flipped[:, 2] = geometry.resized_hw[1] - scaled[:, 0]
    return flipped


def choose_view(seed: int, epoch: int, image_id: int, views: Sequence[int]) -> int:
    """The view of an image that an epoch trains on: a function of the key, never of the loader's order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode(), digest_size=8).digest()
    return views[int.from_bytes(digest, "little") % len(views)]
