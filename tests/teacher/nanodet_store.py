"""Write a lossless store of a real COCO detector's outputs: NanoDet-Plus (ONNX) over real images.

    uv run --with onnxruntime python tests/teacher/nanodet_store.py MODEL.onnx COCO_FOLDER nanodet.zarr

Conventions of that model: BGR, stretched to 416x416, strides 8..64, 8 bins, class logits first. For
measurements such as ``ldp store fidelity nanodet.zarr --temperature 10``.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]
from numpy.typing import NDArray
from PIL import Image

from pipeline.cache import writer
from pipeline.cache.records import PlannedView, SoftTargets, ViewKey
from pipeline.cache.table import ViewTable, plan_schema
from pipeline.codec.precision import Precision
from pipeline.data.coco import read_coco
from pipeline.data.manifest import Manifest, training_boxes
from pipeline.data.views import ViewGeometry
from pipeline.planning import RegionsConfig, plan_view
from pipeline.progress import show_progress
from pipeline.regions.grid import level_lengths, level_sizes
from pipeline.regions.overlap import VlrOverlap

SIDE, STRIDES, BINS, CLASSES = 416, (8, 16, 32, 64), 8, 80
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
LOSSLESS = Precision(edge_step=None, edge_step_cap=1.0, cls_step=None)
VIEWS_PER_PARTITION = 64


def main() -> None:
    """Parse the command line and write the store."""
    parser = argparse.ArgumentParser(description="Write a lossless store of NanoDet-Plus's outputs.")
    parser.add_argument("model", type=Path, help="nanodet-plus-m_416.onnx")
    parser.add_argument("images", type=Path, help="folder with annotations/instances_SPLIT.json and SPLIT/")
    parser.add_argument("output", type=Path, help="the store to write")
    parser.add_argument("--split", default="train")
    parser.add_argument("--overlap", choices=get_args(VlrOverlap), default="released")
    arguments = parser.parse_args()
    regions = RegionsConfig(overlap=arguments.overlap, lower_fraction=0.25)
    annotations = arguments.images / "annotations" / f"instances_{arguments.split}.json"
    manifest = read_coco(annotations, str(arguments.images), arguments.split)
    views = list(planned_views(manifest, regions))
    session = onnxruntime.InferenceSession(str(arguments.model))
    targets = [soft_targets(session, manifest, view) for view in show_progress(views, len(views), "teacher")]
    write(arguments.output, views, targets)


def planned_views(manifest: Manifest, regions: RegionsConfig) -> Iterator[PlannedView]:
    """One view of every image, stretched as the model takes it."""
    for record in manifest.images:
        geometry = ViewGeometry(
            original_hw=(record.height, record.width),
            resized_hw=(SIDE, SIDE),
            padded_hw=(SIDE, SIDE),
            flip=False,
        )
        truth = training_boxes(record, manifest.labels)
        yield plan_view(ViewKey(record.image_id, 0), geometry, truth, STRIDES, regions)


def soft_targets(session: Any, manifest: Manifest, view: PlannedView) -> SoftTargets:
    """What the model says at the view's points."""
    with Image.open(manifest.image_path(manifest.by_id[view.key.image_id])) as image:
        pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    normalised = (pixels[:, :, ::-1] - np.array(MEAN)) / np.array(STD)
    (output,) = session.run(None, {"data": normalised.transpose(2, 0, 1)[None].astype(np.float32)})
    rows = output[0][flat_positions(view)]
    return SoftTargets(
        edge_logits=rows[:, CLASSES:].reshape(-1, 4, BINS),
        cls_logits=rows[view.points.main_region, :CLASSES],
    )


def flat_positions(view: PlannedView) -> NDArray[np.integer]:
    """(P,) rows of the model's output."""
    lengths = level_lengths(level_sizes((SIDE, SIDE), STRIDES))
    starts = np.cumsum([0, *lengths[:-1]])
    return np.asarray(starts[view.points.level] + view.points.position)


def write(output: Path, views: list[PlannedView], targets: list[SoftTargets]) -> None:
    """A finished store at ``output``."""
    table = ViewTable.from_views(views)
    schema = plan_schema(
        table,
        bins=BINS,
        num_classes=CLASSES,
        strides=STRIDES,
        precision=LOSSLESS,
        views_per_partition=VIEWS_PER_PARTITION,
        fingerprint={"teacher": "NanoDet-Plus-m 416"},
        provenance={"teacher": "NanoDet-Plus-m 416, ONNX"},
    )
    with TemporaryDirectory(dir=output.parent) as folder:
        scratch = Path(folder) / "scratch"
        writer.init(scratch, schema, table)
        for index in range(schema.partitions):
            rows = schema.partition_views(index)
            writer.write_partition(scratch, index, views[rows], targets[rows])
        shutil.rmtree(output, ignore_errors=True)
        writer.finalise(scratch, output)


if __name__ == "__main__":
    main()
