"""All that the page shows, read and measured once."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from pipeline.codec.logits import EDGES
from pipeline.core.paths import SPLITS, TEACHER, RunPaths
from pipeline.report.detections import show_images
from pipeline.report.runs import Run, baseline_of, choose_pair, read_json, read_run
from pipeline.report.shown_views import ShownView, sample_views
from pipeline.store.format.fingerprint import check_compatible
from pipeline.store.format.schema import GEOMETRY, table_specs
from pipeline.store.format.table import position_counts
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import read_table
from pipeline.student.config import StudentConfig
from pipeline.views.manifest import read_split


class Report:
    """Everything behind the page."""

    def __init__(self, folder: RunPaths, students: Mapping[str, StudentConfig], device: torch.device) -> None:
        """Read all results of a run, and measure on ``device`` what no earlier stage did.

        A ``PipelineError`` names a result that is missing or damaged, and a store of another dataset.
        """
        self.train, self.val = (read_split(folder, split) for split in SPLITS)
        self.store = TargetStore.open(folder.store)
        check_compatible(self.store.fingerprint, self.train.identity_in(self.store.fingerprint))
        self.teacher = read_run(folder, TEACHER, None)
        self.students: Sequence[Run] = [read_run(folder, name, student) for name, student in students.items()]
        """In the order of ``params.yaml``."""
        self.cache_timing: Mapping[str, Any] = read_json(folder.cache_timing)
        """``seconds`` and ``views`` of the stage that wrote the store."""
        self.fidelity = read_json(folder.fidelity)
        """What ``verify_cache`` measured."""
        self.images = show_images(self.val, folder, [TEACHER, *(run.name for run in self.pair)])
        """Validation images with the detections of the teacher and of the pair."""
        self.views: Sequence[ShownView] = sample_views(folder, self.store, self.train, self.pair, device)
        """Sampled stored views with what the pair predicts there."""

    @property
    def runs(self) -> list[Run]:
        """The teacher and every student."""
        return [self.teacher, *self.students]

    @property
    def pair(self) -> list[Run]:
        """The students that are looked at closely: see :func:`choose_pair`."""
        return choose_pair(self.students)

    @property
    def distilled(self) -> Run | None:
        """The distilled one of the pair."""
        return self.pair[-1] if self.pair[-1].distilled else None

    def baseline(self, run: Run) -> Run | None:
        """See :func:`baseline_of`."""
        return baseline_of(run, self.students)

    def gain(self, run: Run, name: str = "AP", of: str = "metrics") -> float | None:
        """A metric, or an AP ``of`` ``per_class``, over the baseline's; ``None`` if either is unknown."""
        before, after = (getattr(each, of).get(name) if each else None for each in (self.baseline(run), run))
        return None if before is None or after is None else after - before

    @property
    def cache_seconds(self) -> float | None:
        """Time of writing the whole store; ``None`` if the run that finished it computed no view.

        A run that goes on after a kill records its time and views: those before it took as long, one by one.
        """
        timing = self.cache_timing
        computed = timing.get("computed_views")
        return float(timing["seconds"]) * timing["views"] / computed if computed else None

    @property
    def teacher_seconds(self) -> float | None:
        """What the teacher in the training loop of the distilled student would take, at the store's rate."""
        if self.distilled is None or self.cache_seconds is None:
            return None
        trained = self.distilled.timing["epochs"] * self.distilled.timing["images"]
        return float(trained * self.cache_seconds / self.cache_timing["views"])

    @cached_property
    def positions(self) -> int:
        """Positions of the grids of all views of the store."""
        schema = self.store.schema
        (geometry,) = (spec for spec in table_specs(schema) if spec.path == GEOMETRY)
        return int(position_counts(read_table(self.store.path, geometry), schema.strides).sum())

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of all views by what is kept of them, from the whole output to what the store takes.

        LD reads edges at kept points and classes at the main ones; neither is compressed.
        """
        totals, schema = self.store.statistics, self.store.schema
        edges = EDGES * schema.bins
        dense = self.positions * (edges + schema.num_classes)
        kept = totals["points"] * edges + totals["main_points"] * schema.num_classes
        return {
            "all positions, float32": 4 * dense,
            "all positions, float16": 2 * dense,
            "points LD reads, float16": 2 * kept,
            "this store": totals["bytes"],
        }
