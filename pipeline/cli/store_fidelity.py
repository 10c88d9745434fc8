"""``ldp store fidelity``: bytes against errors for a list of precisions, on real teacher outputs."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from msgspec import structs, to_builtins

from pipeline.cli.options import JSON, RECIPE, argument, command
from pipeline.codec.edges import EDGES
from pipeline.codec.precision import Precision
from pipeline.core.config import changed, load_section
from pipeline.core.errors import CacheError, ConfigError
from pipeline.core.files import write_json
from pipeline.core.paths import RunPaths, find_recipe, run_paths
from pipeline.core.progress import show_progress
from pipeline.cost.precision import LOSSLESS, encoded_sizes, sample_schema
from pipeline.detector.device import device
from pipeline.detector.gfl import load_detector
from pipeline.fidelity.config import FidelityConfig, load_fidelity
from pipeline.fidelity.fidelity import PointLogits, dequantize_rows, measure_loss_errors, sample_keys
from pipeline.fidelity.loss_error import LossError
from pipeline.store.format.schema import EDGE_CODES
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.partition import quantize_partition
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.extractor import LogitExtractor
from pipeline.teacher.inputs import load_inputs
from pipeline.views.manifest import read_split
from pipeline.views.types import LabeledView, SoftTargets

EDGE_STEPS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.14, 0.2, 0.4, 0.8)
"""Logits; from a quarter of the default to about 3 bits a logit."""
USUAL = Precision(edge_step=0.04, max_step_factor=8.0, cls_step=0.05)
"""The COCO recipes' own; the curve's cap and ratio of steps where the configured precision is lossless."""


class Sample(NamedTuple):
    """Views with exact teacher outputs, and a student's at the same points if there is one."""

    views: Sequence[LabeledView]
    targets: Sequence[SoftTargets]
    strides: tuple[int, ...]
    student: Sequence[SoftTargets] | None


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One precision: bytes as the store would take them, and errors as the losses see them."""

    precision: Precision
    bytes_per_view: float
    bytes_per_point: float
    """All that is stored, per kept point."""
    bits_per_edge_logit: float
    bytes_per_class_row: float
    """Per point whose class logits are stored."""
    edges: LossError
    classes: LossError


@command(
    RECIPE,
    argument("--stored", type=Path, metavar="STORE", help="a lossless store; default: run the teacher"),
    argument("--views", type=int, default=128, help="views of a random sample; default: 128"),
    argument("--temperature", type=float, help="of LD; default: student.loss.ld_temperature"),
    argument("--cls-temperature", type=float, help="of class KD; default: student.loss.kd_temperature"),
    argument("--student", type=Path, metavar="FILE", help="its .safetensors; default: a noisy teacher"),
    JSON,
)
def fidelity_command(arguments: argparse.Namespace) -> None:
    """Quantizes exact teacher outputs with a list of precisions, from float32 to below 2 bits a logit.

    Prints for each what the store would take and how far the distillation losses and their gradients by the
    student's logits would be off. The outputs come from the recipe's teacher, or from a lossless store;
    temperatures and the precision to compare with from the recipe.
    """
    if arguments.views < 1:
        raise ConfigError(f"--views: expected 1 or more, but got {arguments.views}")
    params = find_recipe(arguments.recipe)
    given = {name: getattr(arguments, name) for name in ("temperature", "cls_temperature")}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = changed(load_fidelity(params), "ldp store fidelity", **chosen)
    config = load_section(CacheConfig, "cache_teacher", params)
    sample = _stored(arguments) if arguments.stored else _live(arguments, config, run_paths(params))
    precisions = curve_precisions(config.precision)
    curve = measure_curve(sample, precisions, settings)
    points = list(show_progress(curve, len(precisions), "fidelity"))
    sys.stdout.write(render_curve(sample, points, config.precision, settings) + "\n")
    if arguments.json:
        write_json(arguments.json, {"points": to_builtins(points), **to_builtins(settings)})


def _stored(arguments: argparse.Namespace) -> Sample:
    """Exact outputs that a lossless store holds."""
    store = TargetStore.open(arguments.stored)
    if not store.schema.precision.lossless:
        raise CacheError(
            f"{arguments.stored}: expected a lossless store (precision: null), but its edge step is "
            f"{store.schema.precision.edge_step}; leave --stored out to run the recipe's teacher instead"
        )
    if arguments.student:
        raise ConfigError("--student needs images: leave --stored out to run teacher and student on them")
    stored = [store.read(key) for key in sample_keys(store.keys, arguments.views, seed=0)]
    targets = [view.soft_targets() for view in stored]
    return Sample([view.view for view in stored], targets, store.schema.strides, None)


def _live(arguments: argparse.Namespace, config: CacheConfig, folder: RunPaths) -> Sample:
    """Exact outputs of a recipe's teacher."""
    setup = load_inputs(config, read_split(folder, "train"), folder.teacher_weights)
    keys = sample_keys(setup.view_set.keys(), arguments.views, seed=0)
    views = [setup.view_set.view(key) for key in keys]
    teacher = setup.load_teacher(device())
    student = _student_outputs(arguments.student, teacher, views) if arguments.student else None
    return Sample(views, list(teacher.run(views)), setup.view_set.strides, student)


def _student_outputs(weights: Path, teacher: LogitExtractor, views: list[LabeledView]) -> list[SoftTargets]:
    model = load_detector(weights)
    taught = teacher.model.spec
    for name in ("strides", "bins", "conventions"):
        expected, got = getattr(taught, name), getattr(model.spec, name)
        if got != expected:
            raise ConfigError(
                f"{weights}: expected a student of the teacher's {name} {expected}, but got {got}"
            )
    return list(replace(teacher, model=model, precision="float32").run(views))


def curve_precisions(precision: Precision) -> list[Precision]:
    """Lossless, and the given precision with finer and coarser steps; class steps in proportion."""
    usual = USUAL if precision.lossless else precision
    assert usual.edge_step is not None
    assert usual.cls_step is not None
    ratio = usual.cls_step / usual.edge_step
    steps = {step: round(step * ratio, 6) for step in sorted({*EDGE_STEPS, usual.edge_step})}
    return [LOSSLESS, *(structs.replace(usual, edge_step=e, cls_step=c) for e, c in steps.items())]


def measure_curve(
    sample: Sample, precisions: Sequence[Precision], settings: FidelityConfig
) -> Iterator[CurvePoint]:
    """Quantize, compress and dequantize the sample with each precision, with the store's own code."""
    views, targets, strides, student_outputs = sample
    exact = PointLogits.joined(views, targets)
    student = PointLogits.joined(views, student_outputs) if student_outputs else None
    for precision in precisions:
        schema = sample_schema(views, targets, strides, precision)
        rows = quantize_partition(schema, views, targets)
        edges, classes = measure_loss_errors(exact, dequantize_rows(schema, rows), student, settings)
        sizes, points = encoded_sizes(schema, rows), rows.statistics.points
        yield CurvePoint(
            precision=precision,
            bytes_per_view=sum(sizes.values()) / schema.views,
            bytes_per_point=sum(sizes.values()) / max(1, points),
            bits_per_edge_logit=8 * sizes[EDGE_CODES] / max(1, points * EDGES * schema.bins),
            bytes_per_class_row=sizes[schema.cls_path] / max(1, len(exact.classes)),
            edges=edges,
            classes=classes,
        )


HEADER = (
    "edge step  cls step    B/view  B/point  bit/logit  B/class row |"
    "  KL edges  LD loss  gradient    cosine |  KD loss  gradient"
)


def render_curve(
    sample: Sample, points: list[CurvePoint], precision: Precision, settings: FidelityConfig
) -> str:
    """A table, the configured precision marked."""
    kept = sum(len(view.points) for view in sample.views)
    lines = [
        f"{len(sample.views)} views, {kept} points; LD at T = {settings.temperature:g}, class KD at "
        f"T = {settings.cls_temperature:g}; {'a real student' if sample.student else 'a stand-in student'}",
        "",
        HEADER,
    ]
    for point in points:
        mark = "  <- params.yaml" if point.precision == precision else ""
        lines.append(_row(point) + mark)
    return "\n".join(lines)


def _row(point: CurvePoint) -> str:
    chosen, edges, classes = point.precision, point.edges, point.classes
    steps = ("float32", "float32") if chosen.lossless else (f"{chosen.edge_step:g}", f"{chosen.cls_step:g}")
    return (
        f"{steps[0]:>9}  {steps[1]:>8}  {point.bytes_per_view:8.0f}  {point.bytes_per_point:7.2f}  "
        f"{point.bits_per_edge_logit:9.2f}  {point.bytes_per_class_row:11.1f} | {edges.kl_mean:9.2g}  "
        f"{edges.loss_error:7.3%}  {edges.gradient_error:8.2%}  {edges.gradient_cosine:8.6f} | "
        f"{classes.loss_error:8.3%}  {classes.gradient_error:8.2%}"
    )
