"""What a precision costs in bytes and in fidelity: the curve from which the default was chosen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from pipeline.codec.edges import EDGES
from pipeline.codec.precision import Precision
from pipeline.cost.precision import LOSSLESS, encoded_sizes, sample_schema
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import PointLogits, dequantize_rows, measure_loss_errors
from pipeline.fidelity.loss_error import LossError
from pipeline.store.format.schema import CLS_CODES, EDGE_CODES, StoreSchema
from pipeline.store.writer.partition import PartitionRows, quantize_partition
from pipeline.views.types import LabeledView, SoftTargets

T = TypeVar("T")
Progress = Callable[[Iterable[T], int, str], Iterable[T]]

EDGE_STEPS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.14, 0.2, 0.4, 0.8)
"""Logits; from a quarter of the default to about 3 bits a logit."""
USUAL = Precision(edge_step=0.04, max_step_factor=8.0, cls_step=0.05)
"""The COCO recipes' own; the curve's cap and ratio of steps where the configured precision is lossless."""


@dataclass(frozen=True, kw_only=True)
class Sample:
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
    """Per main-region point."""
    edges: LossError
    classes: LossError


def curve_precisions(precision: Precision) -> list[Precision]:
    """Lossless, and the given precision with finer and coarser steps; class steps in proportion."""
    usual = USUAL if precision.lossless else precision
    assert usual.edge_step is not None
    assert usual.cls_step is not None
    ratio = usual.cls_step / usual.edge_step
    steps = sorted({*EDGE_STEPS, usual.edge_step})
    return [LOSSLESS, *(replace(usual, edge_step=step, cls_step=round(step * ratio, 6)) for step in steps)]


def measure_curve(
    sample: Sample, precisions: Sequence[Precision], settings: FidelityConfig, progress: Progress[Precision]
) -> Iterator[CurvePoint]:
    """Quantize, compress and dequantize the sample with each precision, with the store's own code."""
    exact = PointLogits.joined(sample.views, sample.targets)
    student = PointLogits.joined(sample.views, sample.student) if sample.student else None
    for precision in progress(precisions, len(precisions), "fidelity"):
        schema = sample_schema(sample.views, sample.targets, sample.strides, precision)
        rows = quantize_partition(schema, sample.views, sample.targets)
        edges, classes = measure_loss_errors(exact, dequantize_rows(schema, rows), student, settings)
        yield _curve_point(schema, rows, edges, classes)


def _curve_point(
    schema: StoreSchema, rows: PartitionRows, edges: LossError, classes: LossError
) -> CurvePoint:
    sizes = encoded_sizes(schema, rows)
    points, main = rows.statistics.points, rows.statistics.main_points
    return CurvePoint(
        precision=schema.precision,
        bytes_per_view=sum(sizes.values()) / schema.views,
        bytes_per_point=sum(sizes.values()) / max(1, points),
        bits_per_edge_logit=8 * sizes[EDGE_CODES] / max(1, points * EDGES * schema.bins),
        bytes_per_class_row=sizes[CLS_CODES] / max(1, main),
        edges=edges,
        classes=classes,
    )
