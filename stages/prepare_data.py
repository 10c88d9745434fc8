"""Render ``shapes`` or read a COCO-layout dataset; leave each split in an output of its own."""

from dataclasses import replace
from pathlib import Path

from pipeline.core.arguments import stage_arguments
from pipeline.core.config import load_section
from pipeline.core.environment import dataset_root, run_stage
from pipeline.core.errors import DatasetError, short_repr
from pipeline.core.paths import SPLITS, RunPaths, Split, run_paths
from pipeline.core.progress import show_progress
from pipeline.datasets.coco import read_coco, require_images
from pipeline.datasets.config import CocoConfig, PrepareDataConfig, ShapesConfig
from pipeline.datasets.shapes.dataset import write_split
from pipeline.views.manifest import Manifest, keep_trainable, write_manifest


def main() -> None:
    """Run the stage."""
    params = stage_arguments(__doc__).params
    config, folder = load_section(PrepareDataConfig, "prepare_data", params), run_paths(params)
    if config.coco:
        train, val = (_read_split(config.coco, split) for split in SPLITS)
    else:
        assert config.shapes is not None
        train, val = (_render_split(config.shapes, folder, split) for split in SPLITS)
    _require_same_categories(train, val)
    train = keep_trainable(train, keep_empty=config.keep_empty_images)
    if not train.images:
        raise DatasetError(f"{train.root}: expected images to train on, but there are none")
    # Nothing is written before everything has proved good.
    write_manifest(train, folder.manifest("train"))
    write_manifest(val, folder.manifest("val"))


def _render_split(config: ShapesConfig, folder: RunPaths, split: Split) -> Manifest:
    root = folder.split(split)
    write_split(
        config,
        split,
        images=root / "images",
        annotations=root / "annotations.json",
        progress=lambda items: show_progress(items, len(list(items)), f"render {split}"),
    )
    return _read(str(root), "annotations.json", "images", None)


def _read_split(config: CocoConfig, split: Split) -> Manifest:
    section = config.train if split == "train" else config.val
    return _read(config.root, section.annotations, section.images, section.limit)


def _read(root: str, annotations: str, images: str, limit: int | None) -> Manifest:
    here = dataset_root(root)
    if not Path(here).is_dir():
        raise DatasetError(f"{here}: expected the folder of a dataset, but there is none; link it there")
    manifest = read_coco(Path(here) / annotations, here, images)
    manifest = replace(manifest, images=manifest.images[:limit])
    require_images(manifest)
    # Recorded as the parameters name it: the manifest is the same on every machine.
    return replace(manifest, root=root, annotations=annotations)


def _require_same_categories(train: Manifest, val: Manifest) -> None:
    """A label means the same in both splits."""
    if train.labels != val.labels:
        raise DatasetError(
            f"{val.root}: expected the categories of the training split, "
            f"{short_repr(list(train.labels))}, but got {short_repr(list(val.labels))}"
        )


if __name__ == "__main__":
    run_stage(main)
