"""Render ``shapes`` or read a COCO-layout dataset; leave each split in an output of its own."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

from pipeline.core.environment import dataset_root
from pipeline.core.errors import DatasetError
from pipeline.core.files import write_json
from pipeline.core.paths import SPLITS
from pipeline.core.stage import logger, run_stage, stage_inputs
from pipeline.datasets import checks
from pipeline.datasets.coco import read_coco
from pipeline.datasets.config import PrepareDataConfig, SplitConfig
from pipeline.datasets.shapes.dataset import write_split
from pipeline.views.manifest import MIN_SIDE_PX, Manifest, keep_trainable, write_manifest
from pipeline.views.summary import lines, metrics

RENDERED = SplitConfig(annotations="annotations.json", images="images")


def main() -> None:
    """Run the stage."""
    config, folder, params = stage_inputs(PrepareDataConfig, "prepare_data", __doc__)
    if config.coco:
        train, val = (_read(config.coco.root, split) for split in (config.coco.train, config.coco.val))
    else:
        assert config.shapes is not None
        for split in SPLITS:
            root = folder.split(split)
            write_split(config.shapes, split, images=root / "images", annotations=root / "annotations.json")
        train, val = (_read(str(folder.split(split)), RENDERED) for split in SPLITS)
    checks.require_trainable(train, val)
    figures = {"train": _report("train", train), "val": _report("val", val)}
    for sentence in checks.split_warnings(train, val):
        logger.warning("val: WARNING: %s", sentence)
    read, train = len(train.images), keep_trainable(train, keep_empty=config.keep_empty_images)
    if len(train.images) < read:
        left_out = (
            f"{read - len(train.images):,} of {read:,} images are not trained on: a side is below "
            f"{MIN_SIDE_PX} px, or they have no object and keep_empty_images is false"
        )
        if not train.images:
            raise DatasetError(f"{train.root}: expected images to train on, but {left_out}")
        logger.warning("train: WARNING: %s", left_out)
    import_module("pipeline.cli.params").check_images(params, len(train.images))  # by name
    # Nothing is written before everything has proved good.
    for split, manifest in zip(SPLITS, (train, val), strict=True):
        write_manifest(manifest, folder.manifest(split))
        write_json(folder.metrics(f"data/{split}"), figures[split])


def _report(split: str, manifest: Manifest) -> dict[str, int]:
    """Say what was read; returns its figures for ``dvc metrics show``."""
    for line in lines(manifest):
        logger.info("%s: %s", split, line)
    for sentence in checks.warnings(manifest):
        logger.warning("%s: WARNING: %s", split, sentence)
    return metrics(manifest)


def _read(root: str, split: SplitConfig) -> Manifest:
    here = dataset_root(root)
    if not Path(here).is_dir():
        raise DatasetError(f"{here}: expected the folder of a dataset, but there is none; link it there")
    manifest = read_coco(Path(here) / split.annotations, here, split.images)
    manifest = replace(manifest, images=manifest.images[: split.limit], annotations=split.annotations)
    checks.require_boxes_in_pixels(manifest)
    # Recorded as the parameters name it: the manifest is the same on every machine.
    return replace(checks.look_at_files(manifest), root=root)


if __name__ == "__main__":
    run_stage(main)
