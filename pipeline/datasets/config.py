"""Where a recipe's images and annotations come from."""

from dataclasses import dataclass

from pipeline.core.errors import ConfigError
from pipeline.datasets.shapes.dataset import ShapesConfig


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """One split of a COCO-layout dataset."""

    annotations: str
    """Annotation file under the root."""
    images: str
    """Folder of the images under the root."""
    limit: int | None
    """Take only the first images (by id); null takes all."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit: expected 1 or more, or null for all, but got {self.limit}")


@dataclass(frozen=True, kw_only=True)
class CocoConfig:
    """A dataset in COCO's layout, read where it lies."""

    root: str
    train: SplitConfig
    val: SplitConfig


@dataclass(frozen=True, kw_only=True)
class PrepareDataConfig:
    """Section ``prepare_data``: exactly one of ``shapes`` and ``coco``."""

    source: str
    """File or folder that DVC watches: the renderer, or the folder of the annotations."""
    keep_empty_images: bool
    """Train on images without objects, too."""
    shapes: ShapesConfig | None
    coco: CocoConfig | None

    def __post_init__(self) -> None:
        if (self.shapes is None) == (self.coco is None):
            raise ConfigError("expected exactly one of shapes and coco; set the other to null")
