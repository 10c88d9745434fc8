"""Running the teacher on views and keeping only what distillation reads."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import current_process
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.errors import TeacherError
from pipeline.core.prefetch import Prefetcher
from pipeline.core.progress import timed_call
from pipeline.detector.device import autocast
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import BoxModel
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.dense import PendingDense, dense_outputs
from pipeline.views.conventions import Preprocessing
from pipeline.views.images import ViewFile, normalize_images, read_images, stack_images
from pipeline.views.manifest import Manifest
from pipeline.views.types import LabeledView, SeenPixels, SoftTargets

MAX_PIXELS = 32_000_000
"""Pixels inside the teacher at a time, on the CPU: a ResNet-50 takes 240 bytes for each."""

MAX_DECODERS = 8
"""Each holds a decoded batch: 100 MB for eight views of 1333x800."""

FORWARDS_PER_DECODER = 4
"""On the CPU, where a forward pass takes many times as long as decoding its batch."""


class ThreadCounts(NamedTuple):
    """How many threads of one process decode, and how many run the teacher."""

    decoders: int
    forwards: int
    in_processes: bool = False
    """Decoding has processes: the thread that drives a GPU would wait for Python's lock otherwise."""

    @classmethod
    def of(cls, device: torch.device, cores: int, batch_pixels: int) -> "ThreadCounts":
        """One thread drives a GPU; on the CPU there is one for each core, as far as the memory reaches.

        There a forward pass has one thread: how many it is spread over decides its last bits (oneDNN, group
        normalization), and a store is the same on any machine. ``batch_pixels`` are of the largest batch.
        """
        if device.type != "cpu":
            # Workers of another scheduler are daemons, which may have no processes, unless they are told.
            return cls(max(1, min(cores, MAX_DECODERS)), 1, in_processes=not current_process().daemon)
        forwards = max(1, min(cores, MAX_PIXELS // batch_pixels))
        return cls(min(-(-forwards // FORWARDS_PER_DECODER), MAX_DECODERS), forwards)


class ViewBatch(NamedTuple):
    """Views of one padded size, which go through the teacher together."""

    places: list[int]
    """Of the views among those that were cut into batches."""
    views: list[LabeledView]
    files: list[ViewFile]


class DecodedBatch(NamedTuple):
    """What the teacher is given."""

    pixels: NDArray[np.uint8]
    """``(B, H, W, 3)``, zeros beside each. No tensor: between processes it would take /dev/shm."""
    seen: list[SeenPixels]


def read_batch(batch: ViewBatch, preprocessing: Preprocessing) -> DecodedBatch:
    """Decode a batch, in whatever process."""
    images = read_images(batch.files, preprocessing)
    seen = [SeenPixels.of(image.permute(1, 2, 0).numpy()) for image in images]
    return DecodedBatch(stack_images(images, batch.views[0].geometry.padded_hw)[0].numpy(), seen)


@dataclass(frozen=True, kw_only=True, eq=False)
class PendingTargets:
    """A batch's outputs, on their way from the device to the host while the next batch is computed."""

    views: list[LabeledView]
    edge_logits: Tensor
    """``Tensor[P, 4, bins]`` float32, in the host's memory: of all views."""
    cls_logits: Tensor
    """``Tensor[M, C]``, or ``[P, C]``."""
    seen: list[SeenPixels]
    dense: PendingDense | None
    ready: torch.cuda.Event | None
    """What the host waits for, if for anything."""

    def read(self) -> list[SoftTargets]:
        """The outputs of each view, once they are there; a ``TeacherError`` names one that is not finite."""
        if self.ready:
            self.ready.synchronize()
        kept = [len(view.points) for view in self.views]
        main = [view.points.main_count for view in self.views]
        edges = torch.split(self.edge_logits, kept)
        classes = torch.split(self.cls_logits, main if len(self.cls_logits) == sum(main) else kept)
        dense = self.dense.read(self.views) if self.dense else repeat(None, len(self.views))
        targets = []
        for view, e, c, d, p in zip(self.views, edges, classes, dense, self.seen, strict=True):
            for name, values in (("edge_logits", e), ("cls_logits", c)):
                if bad := values.numel() - int(values.isfinite().sum()):
                    raise TeacherError(
                        f"image_id={view.key.image_id}, view={view.key.view}: expected finite teacher "
                        f"outputs, but {bad} of {values.numel()} {name} are not"
                    )
            targets.append(SoftTargets(edge_logits=e.numpy(), cls_logits=c.numpy(), dense=d, pixels=p))
        return targets


TeacherThreads = Prefetcher[ViewBatch, DecodedBatch, PendingTargets]


@dataclass(frozen=True)
class LogitExtractor:
    """A frozen detector that turns views into soft targets."""

    model: BoxModel
    manifest: Manifest
    config: CacheConfig
    """Its precision is that of the forward pass; outputs are float32."""
    device: torch.device

    def __post_init__(self) -> None:
        self.model.to_inference(self.device)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.model.spec.conventions.preprocessing

    def run(self, views: Sequence[LabeledView]) -> Iterator[SoftTargets]:
        """Soft targets of views, in their order; the next batches are decoded while one is computed."""
        largest = max((math.prod(view.geometry.padded_hw) for view in views), default=1)
        counts = ThreadCounts.of(self.device, torch.get_num_threads(), self.config.batch_size * largest)
        with closing(self.threads(counts)) as threads:
            yield from self.compute(threads, views)[0]

    def threads(self, counts: ThreadCounts) -> TeacherThreads:
        """The threads of a process that runs this teacher."""
        return Prefetcher(
            partial(read_batch, preprocessing=self.preprocessing),
            self.forward,
            loaders=counts.decoders,
            computers=counts.forwards,
            # An operation stays in the thread that calls it; the caller's own threads keep their number.
            initializer=partial(torch.set_num_threads, 1),
            in_processes=counts.in_processes,
        )

    def compute(
        self, threads: TeacherThreads, views: Sequence[LabeledView]
    ) -> tuple[list[SoftTargets], float, float]:
        """Soft targets in the views' order, by threads that others may share; seconds to decode and run."""
        batches, targets, decode, teacher = self.batches(views), dict[int, SoftTargets](), 0.0, 0.0
        for batch, computed in zip(batches, threads.run(batches), strict=True):
            read, seconds = timed_call(computed.result.read)
            targets |= zip(batch.places, read, strict=True)
            decode += computed.load_seconds
            teacher += computed.compute_seconds + seconds
        return [targets[place] for place in range(len(views))], decode, teacher

    def batches(self, views: Sequence[LabeledView]) -> list[ViewBatch]:
        """Views of equal padded size, in their order, ``batch_size`` at a time: last bits depend on that."""
        groups: dict[tuple[int, int], list[int]] = {}
        for place, view in enumerate(views):
            groups.setdefault(view.geometry.padded_hw, []).append(place)
        size, batches = self.config.batch_size, []
        for places in (group[i : i + size] for group in groups.values() for i in range(0, len(group), size)):
            chosen, manifest = [views[place] for place in places], self.manifest
            files = [(manifest.image_file(manifest.image(v.key.image_id)), v.geometry) for v in chosen]
            batches.append(ViewBatch(places, chosen, files))
        return batches

    def images(self, decoded: DecodedBatch, batch: ViewBatch) -> Tensor:
        """Normalized images ``Tensor[B, 3, H, W]``, channels last, on the device."""
        sizes = torch.tensor([view.geometry.resized_hw for view in batch.views])
        stacked = self._send(torch.from_numpy(decoded.pixels))
        return normalize_images(stacked, self._send(sizes), self.preprocessing)

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> RawOutputs:
        """The network's outputs for images as :meth:`images` gives them."""
        with autocast(self.config.forward_precision, self.model.device):
            return self.model(images)

    @torch.inference_mode()
    def forward(self, decoded: DecodedBatch, batch: ViewBatch) -> PendingTargets:
        """Give a batch to the device, which the host does not wait for."""
        raw = self.outputs(self.images(decoded, batch))
        grid, points = self.model.spec.pyramid.grid_of(raw.sizes), [view.points for view in batch.views]
        # Among the ``B * N`` positions of B equal grids: all points, and those in the main region.
        rows = [i * len(grid) + grid.flatten(p.level, p.position) for i, p in enumerate(points)]
        main = [row[p.main_region] for row, p in zip(rows, points, strict=True)]
        on_gpu = self.model.device.type == "cuda"
        return PendingTargets(
            views=batch.views,
            seen=decoded.seen,
            # Selected on the device: what is copied to the host is a twentieth of the maps.
            edge_logits=self._select(raw.edge_logits, rows),
            cls_logits=self._select(raw.cls_logits, rows if self.config.valuable_classes else main),
            dense=dense_outputs(raw, self.config.dense) if self.config.dense else None,
            ready=torch.cuda.current_stream(self.model.device).record_event() if on_gpu else None,
        )

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; from pinned memory, for the host would wait for a copy from any other."""
        device = self.model.device
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    def _select(self, outputs: Tensor, rows: list[NDArray[np.int64]]) -> Tensor:
        """Rows of ``Tensor[B, N, ...]`` seen as ``(B * N, ...)``, as float32 for the host (pinned)."""
        index = self._send(torch.from_numpy(np.concatenate(rows))).to(outputs.device)
        return outputs.flatten(0, 1)[index].float().to("cpu", non_blocking=True)
