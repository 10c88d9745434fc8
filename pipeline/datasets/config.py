"""Where a recipe's images and annotations come from."""

from typing import Annotated

from msgspec import Meta

from pipeline.core.config import Count, Section
from pipeline.core.errors import ConfigError

FIRST_VAL_ID = 1_000_001
"""Images of ``shapes``' validation split are numbered from here, those of training from 1."""

ImageCount = Annotated[int, Meta(ge=1, lt=FIRST_VAL_ID)]


class ShapesConfig(Section, frozen=True, kw_only=True):
    """What determines every byte of the rendered dataset."""

    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    train_images: ImageCount
    val_images: ImageCount
    long_edge: Annotated[int, Meta(ge=32, le=2048, multiple_of=2)]
    """Pixels, even; the short edge is the same or about 5/6 of it, even too."""
    annotation_noise: Annotated[float, Meta(ge=0, le=0.25)]
    """Share of a box's side by which its edges in ``train`` are off at most; ``val`` is exact."""


class SplitConfig(Section, frozen=True, kw_only=True):
    """One split of a COCO-layout dataset."""

    annotations: str
    """Annotation file under the root."""
    images: str
    """Folder of the images under the root."""
    limit: Count | None = None
    """Take only the first images (by id); null takes all."""


class CocoConfig(Section, frozen=True, kw_only=True):
    """A dataset in COCO's layout, read where it lies."""

    root: str
    train: SplitConfig
    val: SplitConfig


class PrepareDataConfig(Section, frozen=True, kw_only=True):
    """Section ``prepare_data``: exactly one of ``shapes`` and ``coco``."""

    source: str
    """What DVC watches: the renderer, or the dataset; of COCO the annotations, since each command would look
    at 118,287 images (15 s), and a replaced one is noticed when it is read."""
    keep_empty_images: bool = True
    """Train on images without objects, too."""
    shapes: ShapesConfig | None = None
    coco: CocoConfig | None = None

    def __post_init__(self) -> None:
        if (self.shapes is None) == (self.coco is None):
            raise ConfigError("expected exactly one of shapes and coco")
