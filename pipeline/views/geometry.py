"""Views: deterministic augmentations of an image, and which of them a student sees when.

Geometry follows mmdetection's ``Resize(keep_ratio=True)``, ``RandomFlip`` and ``Pad(size_divisor=32)``, or
gives every view one fixed size, as detectors with a fixed input want it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import ConfigError

PAD_MULTIPLE = 32
"""Each view is padded by itself to a multiple of this, px."""

LONGEST_PX = 2**14
"""Of a view: its teacher would take 64 GB."""

Boxes = NDArray[np.float32]

ResizeMode = Literal["keep_ratio", "stretch", "letterbox", "letterbox_centred"]
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

    @property
    def largest_pixels(self) -> int:
        """No view has more pixels than this, padding aside."""
        return max(long * short for long, short in self.scales)

    def geometry(
        self,
        original_hw: tuple[int, int],
        image_id: int,  # noqa: ARG002
        number: int,
        fit: "ResizeMode" = "keep_ratio",
    ) -> "ViewGeometry":
        """One view of an image; all images have the same."""
        return enumerate_views(original_hw, self, fit)[number]

    def choose(self, seed: int, epoch: int, image_id: int) -> int:
        """The view that an epoch trains on, drawn anew for every epoch and image."""
        return choose_view(seed, epoch, image_id, self.numbers)

    def to_json(self) -> dict[str, Any]:
        """As it stands in fingerprints."""
        return {"scales": [list(scale) for scale in self.scales], "flips": list(self.flips)}


@dataclass(frozen=True, kw_only=True)
class PerEpochViewsConfig:
    """Views of all epochs, drawn beforehand: epoch ``e`` trains on exactly view ``e`` of every image.

    Short edge and flip follow mmdetection's ``Resize(multiscale_mode="range")`` and ``RandomFlip``, but each
    is a function of ``(seed, epoch, image_id)``.
    """

    epochs: int
    """Views of every image."""
    long_edge: int
    """Longest edge of a view, px."""
    short_edges: tuple[int, int]
    """Smallest and largest short edge, px; every whole number from one to the other is as likely."""
    flip_probability: float
    seed: int

    def __post_init__(self) -> None:
        least, most = self.short_edges
        if self.epochs < 1:
            raise ConfigError(f"epochs: expected 1 or more, but got {self.epochs}")
        if not 0 < least <= most <= self.long_edge:
            raise ConfigError(
                f"short_edges: expected 0 < least <= most <= {self.long_edge} (long_edge), "
                f"but got {least} and {most}"
            )
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(f"flip_probability: expected 0 to 1, but got {self.flip_probability}")

    @property
    def numbers(self) -> range:
        """Numbers of the views that every image has."""
        return range(self.epochs)

    @property
    def scales(self) -> tuple[tuple[int, int], ...]:
        """The smallest and the largest scale that may be drawn."""
        return tuple((self.long_edge, short_edge) for short_edge in self.short_edges)

    @property
    def largest_pixels(self) -> int:
        """No view has more pixels than this, padding aside."""
        return self.long_edge * self.short_edges[1]

    def geometry(
        self, original_hw: tuple[int, int], image_id: int, number: int, fit: "ResizeMode" = "keep_ratio"
    ) -> "ViewGeometry":
        """The view of an image that one epoch trains on."""
        least, most = self.short_edges
        edge, flip = _draw(f"{self.seed}/{number}/{image_id}", words=2)
        scale = (self.long_edge, least + edge % (most - least + 1))
        return _view(original_hw, scale, fit, flip=flip < self.flip_probability * 2**64)

    def choose(self, seed: int, epoch: int, image_id: int) -> int:  # noqa: ARG002
        """The view of an epoch, which has the epoch's number.

        Raises:
            ConfigError: No view was drawn for so late an epoch.
        """
        if epoch not in self.numbers:
            raise ConfigError(
                f"epoch {epoch}: expected one of the {self.epochs} epochs whose views are planned"
            )
        return epoch

    def to_json(self) -> dict[str, Any]:
        """As it stands in fingerprints."""
        return {**asdict(self), "short_edges": list(self.short_edges)}


Views = ViewsConfig | PerEpochViewsConfig
"""A section ``views`` has the keys of one or of the other."""


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """One deterministic augmentation of one image; sizes are ``(height, width)`` px."""

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    """Of the view, with the borders of a letterbox."""
    padded_hw: tuple[int, int]
    flip: bool
    fit: ResizeMode = "keep_ratio"

    @property
    def content_hw(self) -> tuple[int, int]:
        """Size of the image in the view, without the borders of a letterbox."""
        if self.fit in ("keep_ratio", "stretch"):
            return self.resized_hw
        return letterbox_size(self.original_hw, self.resized_hw)

    @property
    def content_top_left(self) -> tuple[int, int]:
        """``(y, x)`` of the image's corner in the view before a flip: not 0 in a centered letterbox."""
        if self.fit != "letterbox_centred":
            return 0, 0
        pairs = zip(self.resized_hw, self.content_hw, strict=True)
        top, left = ((view - content) // 2 for view, content in pairs)
        return top, left


def resize_keep_ratio(original_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Size of an image resized, ratio kept, to fit into ``(long, short)``; it may be enlarged."""
    height, width = original_hw
    factor = min(scale[0] / max(height, width), scale[1] / min(height, width))
    # Of an image that is a thousand times as long as high, something must be left.
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def letterbox_size(original_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> tuple[int, int]:
    """Size of an image resized, ratio kept, to fit into a canvas of ``(height, width)``."""
    factor = min(canvas / side for canvas, side in zip(canvas_hw, original_hw, strict=True))
    height, width = (int(side * factor + 0.5) for side in original_hw)
    return height, width


def pad_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Size rounded up to multiples of ``PAD_MULTIPLE``."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in size_hw)
    return height, width


def enumerate_views(
    original_hw: tuple[int, int], config: ViewsConfig, fit: ResizeMode = "keep_ratio"
) -> list[ViewGeometry]:
    """All views of an image; a view's number is its index in this list."""
    return [_view(original_hw, scale, fit, flip=flip) for scale in config.scales for flip in config.flips]


def _view(
    original_hw: tuple[int, int], scale: tuple[int, int], fit: ResizeMode, *, flip: bool
) -> ViewGeometry:
    # A detector of a fixed input gets just that, so nothing is padded there.
    keep = fit == "keep_ratio"
    resized = resize_keep_ratio(original_hw, scale) if keep else (scale[1], scale[0])
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
    (drawn,) = _draw(f"{seed}/{epoch}/{image_id}", words=1)
    return views[drawn % len(views)]


def _draw(key: str, *, words: int) -> list[int]:
    """Random numbers below 2^64 that depend on a key alone."""
    digest = hashlib.blake2b(key.encode(), digest_size=8 * words).digest()
    return [int.from_bytes(digest[8 * word : 8 * word + 8], "little") for word in range(words)]
