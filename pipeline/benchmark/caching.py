"""The cache stage beside the limit that no cache can beat: the teacher's forward pass alone."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.benchmark.rounds import Repeats, ShowRounds, now, take_turns
from pipeline.regions.view_set import ViewSet
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor, ThreadCounts, equal_size_batches
from pipeline.teacher.run import StoreLayout, layout_store, partition_views, write_store
from pipeline.teacher.times import Seconds
from pipeline.views.pyramid import Size
from pipeline.views.types import LabeledView, SoftTargets

STAGE, BARE = "cache stage", "teacher's forward pass alone"


@dataclass(frozen=True, kw_only=True)
class BareTeacher(LogitExtractor):
    """A teacher whose images are decoded already, and of whose outputs nothing is kept."""

    decoded: Mapping[tuple[int, Size], Tensor]
    """A batch of every size that occurs, by :func:`size_of`; which pixels it has changes no time."""

    def decode(self, batch: Sequence[LabeledView]) -> Tensor:
        """A batch of that size."""
        return self.decoded[size_of(batch)]

    @torch.inference_mode()
    def forward(self, images: Tensor, batch: Sequence[LabeledView]) -> list[SoftTargets]:  # noqa: ARG002
        """Run the network."""
        self.outputs(images)
        return []


def size_of(batch: Sequence[LabeledView]) -> tuple[int, Size]:
    """Number of views, and their padded size."""
    return len(batch), batch[0].geometry.padded_hw


@dataclass(frozen=True, kw_only=True)
class CacheTimes:
    """The cache stage."""

    views: int
    bare: Repeats
    """Seconds of the forward passes alone, in as many threads."""
    stage: Repeats
    """Seconds of the whole stage, planning and finalising included."""
    shares: Mapping[str, float]
    """Of the threads' busy seconds, by step."""
    bottleneck: str
    store_bytes: int


class CachePasses:
    """Writes the same small store again and again."""

    def __init__(self, plan: ViewSet, config: CacheConfig, teacher: LogitExtractor, folder: Path) -> None:
        self._plan, self._config, self._teacher, self._folder = plan, config, teacher, folder
        self._planned = self._plan_store()
        rows = range(self._planned.schema.partitions)
        views = [partition_views(self._planned, plan, index) for index in rows]
        self._batches = [batch for part in views for batch in equal_size_batches(part, config.batch_size)]
        self._busy = Seconds()
        self._bottleneck = ""

    @property
    def store(self) -> Path:
        """The store that the last pass has written."""
        return self._folder / "targets.zarr"

    def time(self, rounds: int, show: ShowRounds) -> CacheTimes:
        """Measure the stage and the limit in turns."""
        bare = self._bare()
        seconds = take_turns(
            {BARE: lambda: self._time_bare(bare), STAGE: self._time_stage},
            rounds,
            np.random.default_rng(0),
            show,
            "cache",
        )
        busy = asdict(self._busy)
        return CacheTimes(
            views=self._planned.schema.views,
            bare=Repeats.of(seconds[BARE]),
            stage=Repeats.of(seconds[STAGE]),
            shares={name: value / sum(busy.values()) for name, value in busy.items()},
            bottleneck=self._bottleneck,
            store_bytes=sum(file.stat().st_size for file in self.store.rglob("*") if file.is_file()),
        )

    def _plan_store(self) -> StoreLayout:
        spec = self._teacher.model.spec
        return layout_store(
            self._plan,
            self._config,
            num_classes=spec.num_classes,
            bins=spec.bins,
            fingerprint={"views": self._plan.views.to_json()},
            provenance={"made": "for a benchmark"},
            processes=1,
            progress=lambda tables, _total, _label: tables,
        )

    def _bare(self) -> BareTeacher:
        decoded = {size_of(batch): self._teacher.decode(batch) for batch in self._batches}
        return BareTeacher(
            model=self._teacher.model,
            manifest=self._teacher.manifest,
            batch_size=self._teacher.batch_size,
            device=self._teacher.device,
            precision=self._teacher.precision,
            decoded=decoded,
        )

    def _time_bare(self, bare: BareTeacher) -> float:
        pixels = bare.batch_size * self._plan.views.largest_pixels
        counts = ThreadCounts.of(bare.device, torch.get_num_threads(), pixels)
        start = now(bare.device)
        with bare.threads(counts) as threads:
            for _ in threads.run(self._batches):
                pass
        return now(bare.device) - start

    def _time_stage(self) -> float:
        shutil.rmtree(self.store, ignore_errors=True)
        start = now(self._teacher.device)
        times = write_store(
            self._plan_store(),
            self._plan,
            self._teacher,
            scratch_root=self._folder / "scratch",
            output=self.store,
            progress=lambda partitions, _total, _label: partitions,
        )
        seconds = now(self._teacher.device) - start
        self._busy += times.busy
        self._bottleneck = times.bottleneck
        return seconds
