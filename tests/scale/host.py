"""What one core does for a view beside the network: ``python tests/scale/host.py --size 1333 800``."""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import repeat

import torch
from torch import Tensor

from pipeline.codec.precision import Precision
from pipeline.core.tables import markdown_table
from pipeline.cost.probe import Probe
from pipeline.detector.config import DetectorConfig
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
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
    config = ViewsConfig(scales=(tuple(arguments.size),), flips=(False, True))
    cache = CacheConfig(views=config, precision=Precision(edge_step=0.04, cls_step=0.05), batch_size=4)
    count = 2 * arguments.images
    with TemporaryDirectory() as folder:
        probe = Probe(TEACHER, cache, views=count, batch_size=1, folder=Path(folder))
        cpu = partial(repeat, number=1, timer=time.process_time)
        parts = parts_of(probe.view_set).items()
        seconds = {name: min(cpu(part, repeat=arguments.rounds)) for name, part in parts}
        probe.teacher = replace(probe.teacher, model=InstantModel(probe.teacher.model))
        probe.write_store()  # computes the outputs of every size, once
        seconds["the cache stage, were the network instant"] = min(cpu(probe.write_store, repeat=1))
    rows = [[name, f"{1e3 * of_all / count:.2f}"] for name, of_all in seconds.items()]
    print(markdown_table([f"a view of {arguments.size[0]}x{arguments.size[1]}", "CPU ms"], rows), end="")


def parts_of(views: ViewSet) -> dict[str, Callable[[], object]]:
    """The work on all views, by name."""
    preprocessing, keys = GFL_CONVENTIONS.preprocessing, views.keys()
    files = [views.manifest.image_file(views.manifest.image(key.image_id)) for key in keys]
    geometries = [views.geometry(key) for key in keys]
    decoded = list(zip([read_image(*file) for file in files], geometries, strict=True))
    resized = [apply_view(pixels, geometry, preprocessing) for pixels, geometry in decoded]
    padded_hw = [geometry.padded_hw for geometry in geometries]
    stacked = [stack_images([pixels], hw) for pixels, hw in zip(resized, padded_hw, strict=True)]
    return {
        "find the regions": lambda: views.in_rows(slice(None)),
        "decode": lambda: [read_image(*file) for file in files],
        "resize and flip": lambda: [apply_view(*each, preprocessing) for each in decoded],
        "pad": lambda: [stack_images([pixels], hw) for pixels, hw in zip(resized, padded_hw, strict=True)],
        "checksum and thumbnail": lambda: [SeenPixels.of(i.permute(1, 2, 0).numpy()) for i in resized],
        "normalize (a GPU does it itself)": lambda: [normalize_images(*s, preprocessing) for s in stacked],
    }


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
