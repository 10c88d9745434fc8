"""Both splits of ``shapes`` in one folder, laid out like a user's COCO."""

from pathlib import Path

from pipeline.datasets.config import ShapesConfig
from pipeline.datasets.shapes.dataset import write_split


def write_dataset(config: ShapesConfig, root: Path) -> None:
    """Write ``annotations/instances_{train,val}.json`` and ``{train,val}/<image id>.bmp`` below ``root``."""
    for split in ("train", "val"):
        annotations = root / "annotations" / f"instances_{split}.json"
        write_split(config, split, images=root / split, annotations=annotations)
