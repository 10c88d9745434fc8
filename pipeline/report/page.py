"""The page: all that it shows, read and measured once; its template places everything."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import cycle
from pathlib import Path

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.codec.logits import EDGES
from pipeline.core.config import dump_yaml
from pipeline.core.files import digest
from pipeline.core.paths import SPLITS, TEACHER, RunPaths
from pipeline.core.progress import break_even, counted, describe_bytes
from pipeline.report import drawing, figures
from pipeline.report.figures import TERM_NAMES, show_images
from pipeline.report.runs import Run, baseline_of, choose_pair, read_json, read_run
from pipeline.report.shown_views import choose_examples, mean_kl, sample_views, spread
from pipeline.store.format.attributes import check_compatible
from pipeline.store.format.schema import GEOMETRY, table_specs
from pipeline.store.format.table import position_counts
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.shards import read_table
from pipeline.student.config import StudentConfig
from pipeline.student.train import SCHEDULES
from pipeline.views.manifest import read_split
from pipeline.views.summary import lines as summary_lines

STUDENT_COLORS = ("#5a92bd", "#cf4f2e", "#d99a2b", "#8e3f72", "#3c7d94", "#6b6f1a")
"""A student has one color in all charts."""

REGION_VIEWS, EXAMPLES = 4, 6
"""Views whose regions are shown, and objects whose edge distributions are."""


class Report:
    """Everything behind the page."""

    def __init__(self, folder: RunPaths, students: Mapping[str, StudentConfig], device: torch.device) -> None:
        """Read all results of a run, and run students on ``device``; a ``PipelineError`` names a bad one."""
        self.train, self.val = (read_split(folder, split) for split in SPLITS)
        self.store = TargetStore.open(folder.store)
        check_compatible(self.store.fingerprint, self.train.identity_in(self.store.fingerprint))
        self.teacher = read_run(folder, TEACHER, None)
        self.students = [read_run(folder, *student) for student in students.items()]
        self.cache_timing = read_json(folder.cache_timing)
        self.fidelity = read_json(folder.fidelity)
        names = [run.name for run in self.pair]
        self.images = show_images(self.val, folder, [TEACHER, *names])
        self.views = sample_views(folder, self.store, self.train, names, device)

    @property
    def runs(self) -> list[Run]:
        """The teacher and every student, in the order of ``params.yaml``."""
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
        """Time of writing the whole store, all views at the rate of the last run; ``None`` if it had none."""
        timing, computed = self.cache_timing, self.cache_timing.get("computed_views")
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
        """Bytes of all views by what is kept of them; LD reads edges at kept points, classes at main ones."""
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


def shown(value: float | None, pattern: str = "{:,.1f}") -> str:
    """A number by a pattern of ``str.format``; a dash for what is unknown."""
    return "\N{EN DASH}" if value is None else pattern.format(value)


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def detector_colors(runs: Sequence[Run]) -> dict[str, str]:
    """Color of every detector by its name: a student's by its place."""
    colors = cycle(STUDENT_COLORS)
    return {run.name: next(colors) if run.student else drawing.TEACHER for run in runs}


def headline(report: Report) -> str:
    """AP of every detector in a line."""
    gains = [(run, report.gain(run)) for run in report.runs]
    return "AP: " + ", ".join(
        f"{run.name} {shown(run.ap)}" + ("" if gain is None else f" ({gain:+z.1f})") for run, gain in gains
    )


def claim(report: Report) -> str:
    """What one sees, in a sentence."""
    run = report.distilled
    if run is None:
        return "No student of this run was distilled: the store is there, and no student has read it."
    compared = "no plain student of the same kind was trained"
    if baseline := report.baseline(run):
        without = f"the same {baseline.backbone} trained without distillation ({shown(baseline.ap)})"
        compared = f"{shown(report.gain(run), '{:+z.1f}')} against {without}"
    name = f"\N{LEFT DOUBLE QUOTATION MARK}{run.name}\N{RIGHT DOUBLE QUOTATION MARK}"
    return f"Trained from cached teacher outputs, the student {name} reaches {shown(run.ap)} AP: {compared}."


def taught_by(run: Run) -> str:
    """What a detector learned from, in a few words."""
    if run.student is None:
        return "ground truth; the source of the store"
    weights = {term: getattr(run.student.loss, f"{name}_weight") for term, name in SCHEDULES.items()}
    terms = [f"{TERM_NAMES[term]} {weight:g}" for term, weight in weights.items() if weight]
    return " + ".join(["ground truth", *terms]) if terms else "ground truth alone"


def render(report: Report, area_edges: tuple[float, float]) -> str:
    """The page as HTML that needs no other file; ``area_edges`` px part small, medium and large objects."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {f.__name__: f for f in (shown, duration, counted, describe_bytes, dump_yaml)}
    schema = report.store.schema
    few = [view for view in report.views if 2 <= len(view.labels) <= 4]
    views = (few or [view for view in report.views if len(view.labels)])[:REGION_VIEWS]
    return environment.get_template("page.html").render(
        drawing=drawing,
        figures=figures,
        mean_kl=mean_kl,
        report=report,
        area_edges=area_edges,
        claim=claim(report),
        taught_by=taught_by,
        colors=detector_colors(report.runs),
        examples=spread(choose_examples(report.views), EXAMPLES),
        region_views=views,
        region_levels=sorted(set().union(*(view.level.tolist() for view in views))),
        break_even=break_even,
        split_facts=lambda manifest: "; ".join(summary_lines(manifest)),
        fingerprint_sha256=digest(schema.fingerprint),
    )
