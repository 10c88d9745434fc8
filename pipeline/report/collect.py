"""All that the page shows, read and measured once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pipeline.codec.logits import EDGES
from pipeline.core.paths import TEACHER, RunPaths
from pipeline.report.detections import ShownImage, show_images
from pipeline.report.runs import Run, baseline_of, choose_pair, difference, read_json, read_run
from pipeline.report.shown_views import ShownView, sample_views
from pipeline.store.format.fingerprint import check_compatible
from pipeline.store.format.schema import GEOMETRY, table_specs
from pipeline.store.format.table import position_counts
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import read_table
from pipeline.student.config import StudentConfig
from pipeline.views.manifest import Manifest


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything behind the page.

    Attributes:
        teacher: The teacher as a detector.
        students: All students, in the order of ``params.yaml``.
        train: The split that the store is of.
        val: The split that detectors are evaluated on.
        store: What students read.
        cache_timing: ``seconds`` and ``views`` of the stage that wrote it.
        fidelity: What ``verify_cache`` measured.
        images: Validation images with the detections of the teacher and of the pair.
        views: Sampled stored views with what the pair predicts there.
    """

    teacher: Run
    students: Sequence[Run]
    train: Manifest
    val: Manifest
    store: TargetStore
    cache_timing: Mapping[str, Any]
    fidelity: Mapping[str, Any]
    images: Sequence[ShownImage]
    views: Sequence[ShownView]

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
        return self.pair[-1] if self.pair[-1].role == "distilled" else None

    def baseline(self, run: Run) -> Run | None:
        """See :func:`baseline_of`."""
        return baseline_of(run, self.students)

    def gain(self, run: Run, metric: str = "AP") -> float | None:
        """A metric over that of the run's baseline, in points."""
        baseline = self.baseline(run)
        return difference(run.metrics.get(metric), baseline.metrics.get(metric)) if baseline else None

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


def collect(
    folder: RunPaths,
    train: Manifest,
    val: Manifest,
    students: Mapping[str, StudentConfig],
    device: torch.device,
) -> Report:
    """Read all results of a run and measure what no earlier stage did.

    A ``PipelineError`` names a result that is missing or damaged, and a store of another dataset.
    """
    store = TargetStore.open(folder.store)
    check_compatible(store.fingerprint, train.identity_in(store.fingerprint))
    teacher = read_run(folder, TEACHER, None)
    runs = [read_run(folder, name, student) for name, student in students.items()]
    pair = choose_pair(runs)
    detected = {run.name: folder.evaluation(run.name) / "detections.json" for run in (teacher, *pair)}
    return Report(
        teacher=teacher,
        students=runs,
        train=train,
        val=val,
        store=store,
        cache_timing=read_json(folder.cache_timing),
        fidelity=read_json(folder.fidelity),
        images=show_images(val, detected),
        views=sample_views(folder, store, train, pair, device),
    )
