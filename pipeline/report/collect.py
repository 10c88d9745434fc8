"""All that the page shows, read and measured once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pipeline.codec.logits import EDGES
from pipeline.core.paths import TEACHER, RunPaths
from pipeline.core.timing import break_even
from pipeline.detector.gfl import load_detector
from pipeline.report.detections import ShownImage, show_images
from pipeline.report.runs import Pair, Run, baseline_of, choose_pair, difference, read_json, read_run
from pipeline.report.shown_views import EdgeExample, ShownView, choose_examples, edge_examples, sample_views
from pipeline.store.format.fingerprint import check_compatible
from pipeline.store.format.schema import GEOMETRY, StoreSchema, table_specs
from pipeline.store.format.table import position_counts
from pipeline.store.reader.reader import TargetStore, read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.student.config import StudentConfig
from pipeline.views.manifest import Manifest

MAX_SHOWN = 3
"""Students whose detections are drawn."""
FLOAT32_BYTES, FLOAT16_BYTES = 4, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything behind the page."""

    teacher: Run
    students: Sequence[Run]
    """In the order of ``params.yaml``."""
    pair: Pair
    """The plain and the distilled student that are looked at closely."""
    train: Manifest
    val: Manifest
    store: TargetStore
    cache_timing: Mapping[str, Any]
    """``seconds`` and ``views`` of the stage that wrote it."""
    fidelity: Mapping[str, Any]
    """What ``verify_cache`` measured."""
    images: Sequence[ShownImage]
    """Validation images with the detections of the teacher and of some students."""
    views: Sequence[ShownView]
    """Sampled stored views with what the pair predicts there."""

    @property
    def runs(self) -> list[Run]:
        """The teacher and every student."""
        return [self.teacher, *self.students]

    @property
    def examples(self) -> list[EdgeExample]:
        """Objects whose edge distributions are shown."""
        return choose_examples([example for view in self.views for example in edge_examples(view)])

    def baseline(self, run: Run) -> Run | None:
        """See :func:`pipeline.report.runs.baseline_of`."""
        return baseline_of(run, self.students)

    def gain(self, run: Run) -> float | None:
        """AP over that of the run's baseline, in points."""
        baseline = self.baseline(run)
        return difference(run.ap, baseline.ap) if baseline else None

    @property
    def cache_seconds(self) -> float | None:
        """Time of writing the whole store; ``None`` if the run that finished it computed no view.

        A run that goes on after a kill records its time and views: those before it took as long, one by one.
        """
        timing = self.cache_timing
        computed = timing.get("computed_views")
        return float(timing["seconds"]) * timing["views"] / computed if computed else None

    @property
    def teacher_seconds(self) -> dict[str, float]:
        """What the teacher in the loop would take for each distilled student, at the store's rate."""
        per_view = (self.cache_seconds or 0.0) / max(1, self.cache_timing["views"])
        distilled = [run for run in self.students if run.role == "distilled" and per_view]
        return {run.name: run.timing["epochs"] * run.timing["images"] * per_view for run in distilled}

    @property
    def students_to_pay(self) -> int | None:
        """Students like the first distilled one from which on the store costs less than that."""
        online = next(iter(self.teacher_seconds.values()), None)
        return None if online is None else break_even(self.cache_seconds or 0.0, online)

    @property
    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on the disk by sharded array, the largest first; tables and metadata together."""
        parts: Counter[str] = Counter()
        for file in recorded_files(read_finished(self.store.path)):
            sharded = file.partition is not None
            parts[file.name.partition("/c/")[0] if sharded else "tables, metadata"] += file.digest.size
        return dict(parts.most_common())

    @cached_property
    def positions(self) -> int:
        """Positions of the grids of all views of the store."""
        schema = self.store.schema
        (geometry,) = (spec for spec in table_specs(schema) if spec.path == GEOMETRY)
        return int(position_counts(read_table(self.store.path, geometry), schema.strides).sum())

    @property
    def temperature(self) -> float:
        """That of LD: of the shown distilled student, or as all students have it."""
        shown = self.pair.distilled or self.students[0]
        assert shown.student is not None, "the teacher is no student"
        return shown.student.loss.ld_temperature


def size_by_choice(schema: StoreSchema, totals: Mapping[str, Any], positions: int) -> dict[str, int]:
    """Bytes of all views by what is kept of them, from the whole output to what the store takes.

    LD reads edges at kept points and classes at the main ones; neither is compressed.
    """
    edges = EDGES * schema.bins
    dense = positions * (edges + schema.num_classes)
    kept = totals["points"] * edges + totals["main_points"] * schema.num_classes
    return {
        "all positions, float32": dense * FLOAT32_BYTES,
        "all positions, float16": dense * FLOAT16_BYTES,
        "points LD reads, float32": kept * FLOAT32_BYTES,
        "points LD reads, float16": kept * FLOAT16_BYTES,
        "this store": int(totals["bytes"]),
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
    shown = [run.name for run in (teacher, *shown_students(runs, pair))]
    return Report(
        teacher=teacher,
        students=runs,
        pair=pair,
        train=train,
        val=val,
        store=store,
        cache_timing=read_json(folder.cache_timing),
        fidelity=read_json(folder.fidelity),
        images=show_images(val, {name: folder.evaluation(name) / "detections.json" for name in shown}),
        views=views_of_pair(folder, store, train, pair, device),
    )


def views_of_pair(
    folder: RunPaths, store: TargetStore, train: Manifest, pair: Pair, device: torch.device
) -> list[ShownView]:
    """A sample of the store's views, with what the pair predicts there."""
    models = {run.name: load_detector(folder.student_weights(run.name)) for run in pair.runs}
    return sample_views(store, train, models, device)


def shown_students(students: Sequence[Run], pair: Pair) -> list[Run]:
    """At most ``MAX_SHOWN`` students, the pair among them, in their order."""
    preferred = [*pair.runs, *(run for run in students if run not in pair.runs)][:MAX_SHOWN]
    return [run for run in students if run in preferred]
