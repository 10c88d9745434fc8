"""What one core does for a view beside the network: ``python tests/scale/host.py --size 1333 800``."""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from pipeline.codec.precision import Precision
from pipeline.core.tables import markdown_table
from pipeline.cost.probe import Probe
from pipeline.detector.config import DetectorConfig
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel
from pipeline.teacher.config import CacheConfig
from pipeline.training.launch import machine
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.views.conventions import GFL_CONVENTIONS
from pipeline.views.geometry import ViewsConfig
from pipeline.views.images import apply_view, normalize_images, read_image, stack_images
from pipeline.views.types import SeenPixels

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
    preprocessing = GFL_CONVENTIONS.preprocessing
    with TemporaryDirectory() as folder:
        config = ViewsConfig(scales=(tuple(arguments.size),), flips=(False, True))
        cache = CacheConfig(views=config, precision=Precision(edge_step=0.04, cls_step=0.05), batch_size=4)
        probe = Probe(
            TEACHER,
            cache,
            views=2 * arguments.images,
            batch_size=1,
            machine=machine(SINGLE_PROCESS),
            folder=Path(folder),
        )
        views = probe.view_set
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
        probe.teacher = replace(probe.teacher, model=InstantModel(probe.teacher.model))
        probe.write_store()  # computes the outputs of every size, once
        stage = cpu_seconds(probe.write_store) / len(keys)
        rows.append(["the cache stage, were the network instant", f"{1e3 * stage:.2f}"])
    sys.stdout.write(markdown_table([f"a view of {arguments.size[0]}x{arguments.size[1]}", "CPU ms"], rows))


def cpu_seconds(work: Callable[[], object]) -> float:
    """Of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


class InstantModel:
    """Gives images of a size the outputs of the first ones that had it."""

    def __init__(self, model: BoxModel) -> None:
        self._model, self._outputs = model, dict[torch.Size, RawOutputs]()
        self.spec, self.device = model.spec, model.device

    def to_inference(self, device: torch.device) -> None:
        """It has moved."""

    def __call__(self, images: Tensor) -> RawOutputs:
        if images.shape not in self._outputs:
            self._outputs[images.shape] = self._model(images)
        return self._outputs[images.shape]


if __name__ == "__main__":
    main()
