"""Views: deterministic augmentations of an image, and which of them a student sees when.

They follow mmdetection's ``Resize``, ``RandomFlip`` and ``Pad(size_divisor=32)``, or have one fixed size.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.core.config import Count, Section, Share, Whole
from pipeline.core.errors import ConfigError
from pipeline.views.pyramid import Size

PAD_MULTIPLE = 32
"""Each view is padded by itself to a multiple of this, px."""

LONGEST_PX = 2**14
"""Longest edge of a view: its teacher would take 64 GB."""

Boxes = NDArray[np.float32]

Scale = tuple[int, int]
"""``(long, short)`` edges in px that a view must fit into; for a fixed size, its ``(width, height)``."""

ResizeMode = Literal["keep_ratio", "stretch", "letterbox", "letterbox_centred"]
"""How an image fills its view: ``keep_ratio`` resizes (or enlarges) it into the scale, and the view has its
size; ``stretch`` resizes it to the scale, whatever its ratio; the letterboxes give the view the size of the
scale, and put the image, ratio kept, into the upper left corner (YOLOX) or into the middle (YOLOv8)."""


@dataclass(frozen=True, kw_only=True)
class ViewGeometry:
    """One deterministic augmentation of one image; sizes are ``(height, width)`` px."""

    original_hw: Size
    resized_hw: Size
    """Size of the view, with the borders of a letterbox."""
    padded_hw: Size
    flip: bool
    fit: ResizeMode = "keep_ratio"

    @property
    def content_hw(self) -> Size:
        """Size without the borders of a letterbox, rounded half to even if centered, else down."""
        if self.fit in ("keep_ratio", "stretch"):
            return self.resized_hw
        # As Ultralytics' LetterBox, and as YOLOX's preproc.
        rounded: Callable[[float], int] = round if self.fit == "letterbox_centred" else int
        factor = min(view / side for view, side in zip(self.resized_hw, self.original_hw, strict=True))
        height, width = (max(1, rounded(side * factor)) for side in self.original_hw)
        return height, width

    @property
    def content_top_left(self) -> Size:
        """``(y, x)`` of the image's corner in the view before a flip: not 0 in a centered letterbox."""
        if self.fit != "letterbox_centred":
            return 0, 0
        (height, width), (content_height, content_width) = self.resized_hw, self.content_hw
        return (height - content_height) // 2, (width - content_width) // 2


def scale_factors(geometry: ViewGeometry) -> NDArray[np.float32]:
    """View px over original px for x1, y1, x2, y2: ``(4,)``."""
    vertical, horizontal = np.divide(geometry.content_hw, geometry.original_hw)
    return np.array([horizontal, vertical, horizontal, vertical], np.float32)


def transform_boxes(boxes_xyxy: Boxes, geometry: ViewGeometry) -> Boxes:
    """Boxes ``(G, 4)`` of the original image in view coordinates, clipped to the view's content."""
    limits = np.asarray(2 * geometry.content_hw[::-1], np.float32)
    scaled: Boxes = np.clip(boxes_xyxy * scale_factors(geometry), np.float32(0), limits)
    scaled += np.asarray(2 * geometry.content_top_left[::-1], np.float32)
    if geometry.flip:
        scaled[:, [0, 2]] = geometry.resized_hw[1] - scaled[:, [2, 0]]
    return scaled


class Views:
    """A section ``views``: :class:`ViewsConfig` or :class:`PerEpochViewsConfig`."""

    __slots__ = ()

    @property
    def numbers(self) -> range:
        """Numbers of the views that every image has."""
        raise NotImplementedError

    @property
    def scales(self) -> tuple[Scale, ...]:
        """Scales px: all, or the smallest and the largest that may be drawn."""
        raise NotImplementedError

    drawn: Callable[[int, int], tuple[Scale, bool]]
    """Scale of a view, by image and number, and whether it is flipped."""
    choose: Callable[[int, int, int], int]
    """The view that an epoch trains on, by seed, epoch and image; a ``ConfigError`` if it has none."""
    to_json: Callable[[], dict[str, Any]]
    """As a ``Section`` has it."""

    @property
    def largest_pixels(self) -> int:
        """No view has more pixels than this, padding aside."""
        return max(long * short for long, short in self.scales)

    def padded_sizes(self, originals_hw: Iterable[Size], fit: ResizeMode) -> set[Size]:
        """Padded sizes of the views of images; of drawn scales the smallest and the largest."""
        pairs = product(originals_hw, self.scales)
        return {_view(size, scale, fit, flip=False).padded_hw for size, scale in pairs}

    def geometry(
        self, original_hw: Size, image_id: int, number: int, fit: ResizeMode = "keep_ratio"
    ) -> ViewGeometry:
        """One view of an image."""
        scale, flip = self.drawn(image_id, number)
        return _view(original_hw, scale, fit, flip=flip)


class ViewsConfig(Section, Views, frozen=True, kw_only=True):
    """Enumerated views: every scale with every flip, the same of every image."""

    scales: Annotated[tuple[Scale, ...], Meta(min_length=1)]
    flips: Annotated[tuple[bool, ...], Meta(min_length=1)]
    """Whether a view is mirrored horizontally."""

    def __post_init__(self) -> None:
        for scale in self.scales:
            check_scale(scale, "scales")
        for key, values in (("scales", self.scales), ("flips", self.flips)):
            if len(set(values)) < len(values):
                raise ConfigError(f"{key}: expected each once, but got {list(values)}")

    @property
    def numbers(self) -> range:
        return range(len(self.scales) * len(self.flips))

    def drawn(self, image_id: int, number: int) -> tuple[Scale, bool]:  # noqa: ARG002
        scale, flip = divmod(number, len(self.flips))
        return self.scales[scale], self.flips[flip]

    def choose(self, seed: int, epoch: int, image_id: int) -> int:
        """The view that an epoch trains on, drawn anew for every epoch and image."""
        return choose_view(seed, epoch, image_id, self.numbers)


class PerEpochViewsConfig(Section, Views, frozen=True, kw_only=True):
    """Views drawn beforehand by seed, epoch and image: epoch ``e`` trains on view ``e`` of every image.

    They follow mmdetection's ``Resize(multiscale_mode="range")`` and ``RandomFlip``.
    """

    epochs: Count
    """Views of every image."""
    long_edge: Count
    """Longest edge of a view, px."""
    short_edges: tuple[Count, Count]
    """Smallest and largest short edge, px; every whole number from one to the other is as likely."""
    flip_probability: Share = 0.5
    seed: Whole = 0

    def __post_init__(self) -> None:
        if self.short_edges[0] > self.short_edges[1]:
            raise ConfigError(f"short_edges: expected smallest <= largest, but got {list(self.short_edges)}")
        check_scale((self.long_edge, self.short_edges[1]), "short_edges")

    @property
    def numbers(self) -> range:
        return range(self.epochs)

    @property
    def scales(self) -> tuple[Scale, ...]:
        return tuple((self.long_edge, short_edge) for short_edge in self.short_edges)

    def drawn(self, image_id: int, number: int) -> tuple[Scale, bool]:
        smallest, largest = self.short_edges
        key = f"{self.seed}/{number}/{image_id}"
        edge, flip = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), "<u8").tolist()
        scale = (self.long_edge, smallest + edge % (largest - smallest + 1))
        return scale, flip < self.flip_probability * 2**64

    def choose(self, seed: int, epoch: int, image_id: int) -> int:  # noqa: ARG002
        if epoch not in self.numbers:
            raise ConfigError(f"epoch {epoch}: expected one of the {self.epochs} epochs with planned views")
        return epoch


def check_scale(scale: Scale, key: str) -> None:
    """Refuse a scale ``(long, short)`` px that no view has, by a ``ConfigError`` that names its ``key``."""
    if not PAD_MULTIPLE <= scale[1] <= scale[0] <= LONGEST_PX:
        raise ConfigError(
            f"{key}: expected (long, short) with {LONGEST_PX} >= long >= short >= {PAD_MULTIPLE}, "
            f"but got {list(scale)}"
        )


def choose_view(seed: int, epoch: int, image_id: int, views: Sequence[int]) -> int:
    """The view of an image that an epoch trains on: a function of the key, never of the loader's order."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode(), digest_size=8).digest()
    return views[int.from_bytes(digest, "little") % len(views)]


def _view(original_hw: Size, scale: Scale, fit: ResizeMode, *, flip: bool) -> ViewGeometry:
    resized = padded = scale[::-1]  # a detector of a fixed input gets just that
    if fit == "keep_ratio":
        factor = min(scale[0] / max(original_hw), scale[1] / min(original_hw))
        height, width = (max(1, int(side * factor + 0.5)) for side in original_hw)
        resized = height, width
        padded = -(-height // PAD_MULTIPLE) * PAD_MULTIPLE, -(-width // PAD_MULTIPLE) * PAD_MULTIPLE
    return ViewGeometry(original_hw=original_hw, resized_hw=resized, padded_hw=padded, flip=flip, fit=fit)
