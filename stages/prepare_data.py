"""Render ``shapes`` or read a COCO-layout dataset, and write the manifests of its two splits."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config import load_section
from pipeline.data.coco import read_coco, require_images
from pipeline.data.manifest import Manifest, keep_trainable, write_manifest
from pipeline.errors import ConfigError, DatasetError, shown
from pipeline.output import replacing
from pipeline.progress import show_progress
from pipeline.run_folder import run_folder
from pipeline.shapes.dataset import ShapesConfig, write_dataset
from stages.runtime import dataset_root, run_stage


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


SHAPES_SPLITS = {
    split: SplitConfig(annotations=f"annotations/instances_{split}.json", images=split, limit=None)
    for split in ("train", "val")
}


def main() -> None:
    """Run the stage."""
    config = load_section(PrepareDataConfig, "prepare_data")
    folder = run_folder()
    if config.shapes:
        write_dataset(
            config.shapes, folder.rendered, lambda items: show_progress(items, len(list(items)), "render")
        )
        root, splits = str(folder.rendered), SHAPES_SPLITS
    else:
        assert config.coco is not None
        root, splits = config.coco.root, {"train": config.coco.train, "val": config.coco.val}
    train, val = (_read(root, splits[split]) for split in ("train", "val"))
    _require_same_categories(train, val, splits["val"])
    train = keep_trainable(train, keep_empty=config.keep_empty_images)
    if not train.images:
        raise DatasetError(
            f"{root}/{splits['train'].annotations}: expected images to train on, but there are none"
        )
    # Nothing is written before everything has proved good.
    write_manifest(train, folder.manifest("train"))
    write_manifest(val, folder.manifest("val"))
    if config.coco:
        with replacing(folder.rendered / "README.txt") as remark:
            remark.write_text("The images of this dataset lie where params.yaml says.\n")


def _read(root: str, split: SplitConfig) -> Manifest:
    here = dataset_root(root)
    if not Path(here).is_dir():
        raise DatasetError(f"{here}: expected the folder of a dataset, but there is none; link it there")
    manifest = read_coco(Path(here) / split.annotations, here, split.images)
    manifest = replace(manifest, images=manifest.images[: split.limit])
    require_images(manifest)
    # Recorded as the parameters name it: the manifest is the same on every machine.
    return replace(manifest, root=root)


def _require_same_categories(train: Manifest, val: Manifest, split: SplitConfig) -> None:
    """A label means the same in both splits."""
    if train.labels != val.labels:
        raise DatasetError(
            f"{val.root}/{split.annotations}: expected the categories of the training split, "
            f"{shown(list(train.labels))}, but got {shown(list(val.labels))}"
        )


if __name__ == "__main__":
    run_stage(main)
