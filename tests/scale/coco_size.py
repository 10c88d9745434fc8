"""A dataset of COCO's size through the reading of ``prepare_data``, the plan phase, and the evaluation.

    uv run python tests/scale/coco_size.py --images 118287 --processes 2

Annotations are drawn: as many boxes an image as in train2017, of the same sizes, in a file of the same size.
Each piece of work has a process of its own, whose peak memory is reported.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from measured import measure, render

from pipeline.datasets.coco import read_coco
from pipeline.evaluation.coco_ap import evaluate
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewsConfig
from pipeline.views.manifest import keep_trainable, read_manifest, write_manifest

BOXES_PER_IMAGE = 7.27
SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (612, 612), (375, 500), (500, 375), (334, 500))
"""``(height, width)``: the most frequent ones of train2017."""
LOG_SIDE = 3.73, 1.18
"""Mean and deviation, of the square root of a box's area in px: 41 % lie below 32, and 76 % below 96."""
LOG_ASPECT_DEVIATION = 0.5
POINTS_PER_OUTLINE = 24
CATEGORIES = 80
STRIDES = (8, 16, 32, 64, 128)
VIEWS = ViewsConfig(scales=((1333, 800),), flips=(False, True))
DETECTIONS_PER_IMAGE = 100


def write_annotations(path: Path, images: int, seed: int) -> int:
    """Write a COCO annotation file row by row, for all would take 3 GB; returns the number of boxes."""
    rng = Random(seed)
    sizes = [rng.choice(SIZES) for _ in range(images)]
    head = {
        "images": [
            {"id": image, "file_name": f"{image:012}.jpg", "height": height, "width": width}
            for image, (height, width) in enumerate(sizes)
        ],
        "categories": [{"id": number + 1, "name": f"c{number}"} for number in range(CATEGORIES)],
    }
    with path.open("w") as file:
        file.write(f'{json.dumps(head)[:-1]}, "annotations": [')
        boxes = 0  # pycocotools takes an id of 0 for "unmatched"
        for boxes, row in enumerate(_draw_annotations(rng, sizes), start=1):
            file.write(f"{', ' if boxes > 1 else ''}{json.dumps({'id': boxes, **row})}")
        file.write("]}")
    return boxes


def _draw_annotations(rng: Random, sizes: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """Boxes with an exponential tail: every tenth image has 15 and more; likewise points of outlines."""
    outlines = Random(0)
    for image, size in enumerate(sizes):
        for _ in range(1 + int(rng.expovariate(1 / (BOXES_PER_IMAGE - 0.5)))):
            row = _draw_box(rng, image, *size)
            (x, y, w, h), points = row["bbox"], 3 + int(outlines.expovariate(1 / (POINTS_PER_OUTLINE - 3)))
            sides = [(x, w), (y, h)] * points
            yield {"segmentation": [[round(start + s * outlines.random(), 2) for start, s in sides]], **row}


def _draw_box(rng: Random, image: int, height: int, width: int) -> dict[str, Any]:
    side, aspect = rng.lognormvariate(*LOG_SIDE), rng.lognormvariate(0, LOG_ASPECT_DEVIATION)
    w, h = max(2.0, min(width, side * aspect)), max(2.0, min(height, side / aspect))
    box = [round(value, 2) for value in (rng.uniform(0, width - w), rng.uniform(0, height - h), w, h)]
    category = rng.randint(1, CATEGORIES)
    return {"image_id": image, "category_id": category, "bbox": box, "area": round(w * h, 2), "iscrowd": 0}


def prepare(annotations: Path, manifest: Path) -> str:
    """What ``prepare_data`` does but for looking at every image file."""
    read = keep_trainable(read_coco(annotations, str(annotations.parent), "images"), keep_empty=False)
    write_manifest(read, manifest)
    return f"{len(read.images):,} images"


def plan(manifest: Path, processes: int) -> str:
    """The plan phase of ``cache_teacher``."""
    # Loaded here: the other pieces of work do without torch.
    from pipeline.regions.config import RegionsConfig  # noqa: PLC0415
    from pipeline.regions.view_set import ViewSet  # noqa: PLC0415
    from pipeline.teacher.layout import build_index  # noqa: PLC0415

    views = ViewSet(read_manifest(manifest), STRIDES, VIEWS, RegionsConfig(), GFL_CONVENTIONS)
    table = build_index(views, processes)
    points, main, _ = table.counts.mean(axis=0)
    return f"{len(table):,} views, {points:,.0f} kept points and {main:.0f} in the main region of each"


def evaluate_generated(manifest: Path, images: int, seed: int) -> str:
    """COCO evaluation of so many images' worth of detections near all objects, and of others anywhere."""
    whole, rng = read_manifest(manifest), Random(seed)
    truth, results = replace(whole, images=whole.images[:images]), []
    for record in truth.images:
        place = record.image_id, record.height, record.width
        drawn = [_draw_box(rng, *place) | {"score": rng.random()} for _ in range(DETECTIONS_PER_IMAGE)]
        for row, found in zip(drawn, record.annotations, strict=False):
            row |= {"category_id": found.category_id, "bbox": [v + rng.gauss(0, 2) for v in found.box_xywh]}
        results += drawn
    summary = evaluate(truth, results, (32, 96)).summary
    return f"{len(results):,} detections, AP {summary['AP']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--evaluated", type=int, default=5_000, help="images whose detections are evaluated")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ldp-scale-") as folder:
        annotations, manifest = Path(folder, "instances.json"), Path(folder, "manifest.json")
        evaluated, processes = arguments.evaluated, arguments.processes
        rows = [
            measure("draw the annotation file (boxes)", write_annotations, annotations, arguments.images, 0),
            measure("read, check, write the manifest", prepare, annotations, manifest),
            measure(f"COCO evaluation of {evaluated:,} images", evaluate_generated, manifest, evaluated, 0),
            measure("import torch", exec, "import torch"),
            measure(f"plan all views, {processes} processes", plan, manifest, processes),
        ]
    print(render(rows))


if __name__ == "__main__":
    main()
