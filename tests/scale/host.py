"""What one core does for a view beside the network: ``python tests/scale/host.py --size 1333 800``."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline.codec.precision import Precision
from pipeline.core.orphans import keep_freed_memory
from pipeline.core.tables import markdown_table
from pipeline.cost.probe import CachePasses
from pipeline.cost.synthetic_coco import LONG_EDGE_PX, draw_dataset
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import random_teacher
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewsConfig
from pipeline.views.images import apply_view, normalize_images, read_image, stack_images
from pipeline.views.pixels import SeenPixels

TEACHER = DetectorConfig(
    backbone="resnet18", channels=32, levels=5, stacked_convs=1, norm_groups=4, num_classes=80
)
"""Small: its outputs are computed once for each size."""


def main() -> None:
    """Print CPU milliseconds a view, the least of some rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=2, default=(1333, 800), metavar=("LONG", "SHORT"))
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as every stage does
    preprocessing = GFL_CONVENTIONS.preprocessing
    with TemporaryDirectory() as folder:
        edge = min(LONG_EDGE_PX, arguments.size[0])
        manifest = draw_dataset(Path(folder), arguments.images, TEACHER.num_classes, edge)
        config = ViewsConfig(scales=(tuple(arguments.size),), flips=(False, True))
        views = ViewSet(manifest, TEACHER.strides, config, RegionsConfig(), GFL_CONVENTIONS)
        keys = views.keys()
        files = [views.manifest.image_file(views.manifest.image(key.image_id)) for key in keys]
        geometries = [views.geometry(key) for key in keys]
        decoded = [read_image(*file) for file in files]
        resized = [apply_view(p, g, preprocessing) for p, g in zip(decoded, geometries, strict=True)]
        stacked = [stack_images([i], g.padded_hw) for i, g in zip(resized, geometries, strict=True)]
        pairs = list(zip(decoded, geometries, strict=True))
        parts: dict[str, Callable[[], object]] = {
            "find the regions": lambda: views.in_rows(slice(None)),
            "decode": lambda: [read_image(*file) for file in files],
            "resize and flip": lambda: [apply_view(p, g, preprocessing) for p, g in pairs],
            "pad": lambda: [stack_images([i], g.padded_hw) for i, (_, g) in zip(resized, pairs, strict=True)],
            "checksum and thumbnail": lambda: [SeenPixels.of(i.permute(1, 2, 0).numpy()) for i in resized],
            "normalize (a GPU does it itself)": lambda: [
                normalize_images(*s, preprocessing) for s in stacked
            ],
        }
        rows = [
            [name, f"{1e3 * min(cpu_seconds(part) for _ in range(arguments.rounds)) / len(keys):.2f}"]
            for name, part in parts.items()
        ]
        cache = CacheConfig(
            views=views.views, precision=Precision(edge_step=0.04, cls_step=0.05), batch_size=4
        )
        teacher = LogitExtractor(random_teacher(TEACHER), views.manifest, cache, torch.device("cpu"))
        stage = CachePasses(views, teacher, Path(folder)).host_seconds() / len(keys)
        rows.append(["the cache stage, were the network instant", f"{1e3 * stage:.2f}"])
    sys.stdout.write(markdown_table([f"a view of {arguments.size[0]}x{arguments.size[1]}", "CPU ms"], rows))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
