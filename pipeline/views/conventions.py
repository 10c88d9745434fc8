"""How a detector sees an image, and where its points lie: what a student shares with its teacher.

Descriptions and fingerprints have them in the words that they always had: older stores stay readable.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from msgspec import Meta

from pipeline.core.config import Positive, Section, structure
from pipeline.core.errors import CacheError, ConfigError
from pipeline.views.geometry import ResizeMode
from pipeline.views.pyramid import Pyramid

Sampling = Literal["half_pixel", "corner"]
"""``half_pixel``: pixel centers lie at halves, as in OpenCV's and torch's resize; ``corner``: pixel (0, 0)
lies on pixel (0, 0) and pixel (x, y) of the result on (x, y) times the factor, as in a perspective warp."""

_WORDS: dict[str, str] = {
    "half_pixel": "bilinear, half-pixel centres, no antialiasing, rounded to 8 bits",
    "corner": "bilinear, pixel (0, 0) onto (0, 0), no antialiasing, rounded to 8 bits",
    "letterbox": "letterbox, sides rounded down",
    "letterbox_centred": "letterbox_centred, sides rounded half to even",
}
"""Stores that say just ``letterbox`` are of pixels that were rounded otherwise, and are refused."""


class Preprocessing(Section, frozen=True, kw_only=True):
    """From the pixels of a file to those that a detector takes."""

    fit: ResizeMode
    """How an image fills its view."""
    fill: Annotated[int, Meta(ge=0, le=255)] | None
    """Gray level around a letterboxed image; null for any other fit."""
    sampling: Sampling
    color: Literal["RGB", "BGR"]
    """Order of the channels; ``mean`` and ``std`` are in this order."""
    mean: tuple[float, float, float]
    """Gray levels (0-255) that are subtracted."""
    std: tuple[Positive, Positive, Positive]
    """Gray levels that are divided by; 255 for a detector that takes 0-1."""

    def __post_init__(self) -> None:
        letterboxed = self.fit in ("letterbox", "letterbox_centred")
        if letterboxed != (self.fill is not None):
            wanted = "a gray level such as 114" if letterboxed else "null"
            raise ConfigError(f"fill: expected {wanted} for fit {self.fit!r}, but got {self.fill}")

    def to_json(self) -> dict[str, Any]:
        """As it stands in fingerprints and descriptions."""
        document: dict[str, Any] = {
            "decoder": "pillow",
            "colour": self.color,
            "resize": _WORDS[self.sampling],
            "mean": list(self.mean),
            "std": list(self.std),
            "padding": "zeros after normalising, right and bottom",
        }
        if self.fit != "keep_ratio":
            document["fit"] = _WORDS.get(self.fit, self.fit)
        if self.fill is not None:
            document["fill"] = self.fill
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`; a ``CacheError`` for pixels that this code does not make."""
        names, fit = {words: name for name, words in _WORDS.items()}, document.get("fit", "keep_ratio")
        section = {
            **{name: document.get(name) for name in ("fill", "mean", "std")},
            "fit": names.get(str(fit), fit),
            "sampling": names.get(str(document.get("resize"))),
            "color": document.get("colour"),
        }
        with suppress(ConfigError):
            known = structure(cls, section, "preprocessing")
            if known.to_json() == document:
                return known
        raise CacheError(
            f"expected a preprocessing that this code knows, but got {dict(document)}; "
            "read it with the code that it was written with"
        )


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What a teacher's logits are bound to, and its students with them."""

    preprocessing: Preprocessing
    cell_offset: float
    """Offset of a point in its cell, strides: 0 for GFL and NanoDet, 0.5 for YOLO."""

    def pyramid(self, strides: tuple[int, ...]) -> Pyramid:
        """Where a detector of these conventions predicts on levels of ``strides`` px."""
        return Pyramid(strides, self.cell_offset)

    def geometry(self) -> dict[str, float]:
        """What ``geometry`` in a fingerprint says of it: nothing for an offset of 0."""
        return {"cell_offset": self.cell_offset} if self.cell_offset else {}

    def to_json(self) -> dict[str, Any]:
        """For the description beside a detector's weights."""
        return {"preprocessing": self.preprocessing.to_json(), **self.geometry()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Those of a description or a fingerprint, GFL's where it says nothing; a ``CacheError`` as above."""
        pixels, geometry = document.get("preprocessing"), document.get("geometry", document)
        return cls(
            preprocessing=GFL_PREPROCESSING if pixels is None else Preprocessing.from_json(pixels),
            cell_offset=geometry.get("cell_offset", 0.0),
        )


GFL_PREPROCESSING = Preprocessing(
    fit="keep_ratio",
    fill=None,
    sampling="half_pixel",
    color="RGB",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
"""ImageNet's mean and standard deviation, and mmdetection's resize (the GFL configurations)."""

GFL_CONVENTIONS = Conventions(preprocessing=GFL_PREPROCESSING, cell_offset=0.0)
