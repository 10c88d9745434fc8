"""Running the teacher on views and keeping only what distillation reads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from pipeline.cache.records import PlannedView, SoftTargets
from pipeline.data.images import apply_view, batch_images, read_image
from pipeline.data.manifest import Manifest
from pipeline.detector.gfl import GFL
from pipeline.errors import TeacherError


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A frozen detector that turns planned views into soft targets.

    Views are batched only with views of the same padded size, and batches are cut in the same way
    whatever the machine, because a convolution's last bits can depend on the batch.
    """

    model: GFL
    manifest: Manifest
    batch_size: int
    device: torch.device

    def __post_init__(self) -> None:
        self.model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(self, views: Sequence[PlannedView]) -> Iterator[SoftTargets]:
        """Soft targets of views, in their order; the next batch is decoded while one is computed."""
        batches = equal_size_batches(views, self.batch_size)
        with ThreadPoolExecutor(max_workers=1) as decoder:
            waiting = decoder.submit(self._load, batches[0]) if batches else None
            for index, batch in enumerate(batches):
                assert waiting is not None
                images = waiting.result()
                if index + 1 < len(batches):
                    waiting = decoder.submit(self._load, batches[index + 1])
                yield from self.forward(images, batch)

    def _load(self, batch: Sequence[PlannedView]) -> Tensor:
        pixels = []
        for view in batch:
            record = self.manifest.by_id[view.key.image_id]
            image = read_image(self.manifest.image_path(record), view.geometry.original_hw)
            pixels.append(apply_view(image, view.geometry))
        return batch_images(pixels, [view.geometry.padded_hw for view in batch])

    @torch.inference_mode()
    def forward(self, images: Tensor, batch: Sequence[PlannedView]) -> Iterator[SoftTargets]:
        """Soft targets of a batch of images ``Tensor[B, 3, H, W]`` of equal padded size."""
        raw = self.model(images.to(self.device, memory_format=torch.channels_last))
        starts = _level_starts(raw.sizes)
        for row, view in enumerate(batch):
            # Selected on the device: what is copied to the host is a twentieth of the maps.
            level = torch.from_numpy(view.points.level).long()
            index = (starts[level] + torch.from_numpy(view.points.position).long()).to(self.device)
            main = index[torch.from_numpy(view.points.main_region).to(self.device)]
            soft = SoftTargets(
                edge_logits=raw.edge_logits[row, index].float().cpu().numpy(),
                cls_logits=raw.cls_logits[row, main].float().cpu().numpy(),
            )
            require_finite(soft, view)
            yield soft


def equal_size_batches(views: Sequence[PlannedView], batch_size: int) -> list[list[PlannedView]]:
    """Consecutive views of equal padded size, at most ``batch_size`` at a time."""
    batches = []
    for _, group in groupby(views, key=lambda view: view.geometry.padded_hw):
        run = list(group)
        batches += [run[start : start + batch_size] for start in range(0, len(run), batch_size)]
    return batches


def _level_starts(sizes: Sequence[tuple[int, int]]) -> Tensor:
    lengths = torch.tensor([height * width for height, width in sizes])
    return lengths.cumsum(0) - lengths


def require_finite(soft: SoftTargets, view: PlannedView) -> None:
    """Stop at the first image for which the teacher says nothing usable."""
    for name in ("edge_logits", "cls_logits"):
        values = torch.from_numpy(getattr(soft, name))
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise TeacherError(
                f"image_id={view.key.image_id}, view={view.key.view}: expected finite teacher outputs, "
                f"but {bad} of {values.numel()} {name} are not"
            )
