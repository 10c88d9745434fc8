"""Running the teacher on views and keeping only what distillation reads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.core.prefetch import Prefetcher
from pipeline.detector.amp import autocast
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel
from pipeline.teacher.dense import dense_outputs
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.pixels import SeenPixels
from pipeline.views.pyramid import Grid
from pipeline.views.types import LabeledView, SoftTargets


class DecodedBatch(NamedTuple):
    """What the teacher is given."""

    images: Tensor
    """``Tensor[B, 3, H, W]``, in the host's memory."""
    pixels: list[SeenPixels]
    """What they were made of."""


TeacherThreads = Prefetcher[list[LabeledView], DecodedBatch, list[SoftTargets]]
"""The threads that decode batches and run the teacher on them."""

MAX_PIXELS = 32_000_000
"""Pixels inside the teacher at a time, on the CPU: a ResNet-50 takes 240 bytes for each."""

MAX_DECODERS = 8
"""Each holds a decoded batch: 100 MB for eight views of 1333x800."""

FORWARDS_PER_DECODER = 4
"""On the CPU, where a forward pass takes many times as long as decoding its batch."""


@dataclass(frozen=True, kw_only=True)
class ThreadCounts:
    """How many threads of one process decode, and how many run the teacher."""

    decoders: int
    forwards: int

    @classmethod
    def of(cls, device: torch.device, cores: int, batch_pixels: int) -> "ThreadCounts":
        """One thread drives a GPU; on the CPU there is one for each core, as far as the memory reaches.

        A forward pass on the CPU has one thread, for its last bits depend on how many it is spread over
        (oneDNN and group normalization sum in another order): so a store is the same on any number of cores.
        ``batch_pixels`` are those of all views of the largest batch.
        """
        if device.type != "cpu":
            return cls(decoders=max(1, min(cores, MAX_DECODERS)), forwards=1)
        forwards = max(1, min(cores, MAX_PIXELS // batch_pixels))
        return cls(decoders=min(-(-forwards // FORWARDS_PER_DECODER), MAX_DECODERS), forwards=forwards)


@dataclass(frozen=True, kw_only=True)
class LogitExtractor:
    """A frozen detector that turns views into soft targets.

    Views are batched only with views of the same padded size, and batches are cut in the same way
    whatever the machine, because a convolution's last bits can depend on the batch.
    """

    model: BoxModel
    manifest: Manifest
    batch_size: int
    device: torch.device
    precision: NetworkPrecision
    """The forward pass has this one; outputs are float32."""
    dense: DensePrecision | None = None
    """How the outputs at *all* positions are kept, if they are."""

    def __post_init__(self) -> None:
        self.model.to_inference(self.device)

    def run(self, views: Sequence[LabeledView]) -> Iterator[SoftTargets]:
        """Soft targets of views, in their order; the next batches are decoded while one is computed."""
        pixels = self.batch_size * max((math.prod(view.geometry.padded_hw) for view in views), default=1)
        with self.threads(ThreadCounts.of(self.device, torch.get_num_threads(), pixels)) as threads:
            for computed in threads.run(equal_size_batches(views, self.batch_size)):
                yield from computed.result

    def threads(self, counts: ThreadCounts) -> TeacherThreads:
        """The threads of a process that runs this teacher; to be closed."""
        return Prefetcher(
            self.decode,
            self.forward,
            loaders=counts.decoders,
            computers=counts.forwards,
            # An operation stays in the thread that calls it; the caller's own threads keep their number.
            initializer=partial(torch.set_num_threads, 1),
        )

    def decode(self, batch: Sequence[LabeledView]) -> DecodedBatch:
        """The pixels of a batch."""
        preprocessing = self.model.spec.conventions.preprocessing
        pixels = []
        for view in batch:
            record = self.manifest.image(view.key.image_id)
            image = read_image(*self.manifest.image_file(record))
            pixels.append(apply_view(image, view.geometry, preprocessing))
        images = batch_images(pixels, [view.geometry.padded_hw for view in batch], preprocessing)
        # From pinned memory the copy to a GPU is several times as fast.
        images = images.pin_memory() if self.model.device.type == "cuda" else images
        return DecodedBatch(images, [SeenPixels.of(view.permute(1, 2, 0).numpy()) for view in pixels])

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> RawOutputs:
        """The network's outputs for images ``Tensor[B, 3, H, W]`` in the host's memory, on its device."""
        target = self.model.device
        with autocast(self.precision, target):
            return self.model(images.to(target, memory_format=torch.channels_last, non_blocking=True))

    @torch.inference_mode()
    def forward(self, decoded: DecodedBatch, batch: Sequence[LabeledView]) -> list[SoftTargets]:
        """Soft targets of a batch of images of equal padded size.

        Raises:
            TeacherError: an output is not finite; names its view.
        """
        raw = self.outputs(decoded.images)
        points, main = kept_rows(batch, self.model.spec.pyramid.grid_of(raw.sizes))
        # Selected on the device: what is copied to the host is a twentieth of the maps.
        edge_logits = _select(raw.edge_logits, points)
        cls_logits = _select(raw.cls_logits, main)
        edges = np.split(edge_logits, np.cumsum([len(view.points) for view in batch])[:-1])
        classes = np.split(cls_logits, np.cumsum([view.points.main_count for view in batch])[:-1])
        dense = dense_outputs(raw, batch, self.dense) if self.dense else [None] * len(batch)
        targets = [
            SoftTargets(edge_logits=e, cls_logits=c, dense=d, pixels=p)
            for e, c, d, p in zip(edges, classes, dense, decoded.pixels, strict=True)
        ]
        for soft, view in zip(targets, batch, strict=True):
            require_finite(soft, view)
        return targets


def equal_size_batches(views: Sequence[LabeledView], batch_size: int) -> list[list[LabeledView]]:
    """Consecutive views of equal padded size, at most ``batch_size`` at a time."""
    batches = []
    for _, group in groupby(views, key=lambda view: view.geometry.padded_hw):
        run = list(group)
        batches += [run[start : start + batch_size] for start in range(0, len(run), batch_size)]
    return batches


def kept_rows(batch: Sequence[LabeledView], grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of all points, and of those in the main region, among the ``B * N`` positions of B equal grids."""
    points = [view.points for view in batch]
    rows = [number * len(grid) + grid.flatten(p.level, p.position) for number, p in enumerate(points)]
    main = [row[p.main_region] for row, p in zip(rows, points, strict=True)]
    return np.concatenate(rows), np.concatenate(main)


def _select(outputs: Tensor, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of ``Tensor[B, N, ...]`` seen as ``(B * N, ...)``, as float32 in the host's memory."""
    index = torch.from_numpy(rows).to(outputs.device)
    selected: NDArray[np.float32] = outputs.flatten(0, 1)[index].float().cpu().numpy()
    return selected


def require_finite(soft: SoftTargets, view: LabeledView) -> None:
    """Stop at the first image whose teacher outputs are not finite."""
    for name in ("edge_logits", "cls_logits"):
        values = torch.from_numpy(getattr(soft, name))
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise TeacherError(
                f"image_id={view.key.image_id}, view={view.key.view}: expected finite teacher outputs, "
                f"but {bad} of {values.numel()} {name} are not"
            )
