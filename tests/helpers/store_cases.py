"""Small plans of views that several test modules share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.codec.dense import DensePrecision
from pipeline.codec.precision import Precision
from pipeline.core.files import lock_scratch
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.store.writer.partition import quantize_partition
from pipeline.store.writer.writer import (
    finalise,
    finished_partitions,
    init,
    read_schema,
    require_views,
    write_partition,
)
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import DenseOutputs, KeptPoints, LabeledView, SoftTargets, ViewKey

QUANTIZED = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.05)
LOSSLESS = Precision(edge_step=None, max_step_factor=4.0, cls_step=None)
BINS, CLASSES = 5, 3
STRIDES = (8, 16, 32, 64)
CHUNK_ROWS = 8

Content = dict[str, bytes]
"""Every file of a folder, by its path there."""
Values = list[tuple[str, tuple[int, ...], bytes]]
"""Every array and number of a stored view: type, shape and bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreCase:
    """Views, what the teacher says about them, and the store they are to become."""

    views: Sequence[LabeledView]
    targets: Sequence[SoftTargets]
    table: ViewIndex
    schema: StoreSchema


def make_view(key: ViewKey, points: int, boxes: int) -> LabeledView:
    """A view with random content; its first points are in the main region, if there are boxes."""
    rng = np.random.default_rng([key.image_id, key.view])
    cells = np.sort(rng.choice(200, points, replace=False))
    main_gt = np.full(points, -1)
    if boxes:
        main_gt[: points // 3] = rng.integers(0, boxes, points // 3)
    weight = np.where(main_gt < 0, rng.random(points) ** 3, 0).astype(np.float32)
    flip = bool(key.view % 2)
    return LabeledView(
        key=key,
        geometry=ViewGeometry(original_hw=(48, 64), resized_hw=(75, 100), padded_hw=(96, 128), flip=flip),
        boxes_xyxy=rng.random((boxes, 4)).astype(np.float32),
        labels=rng.integers(0, CLASSES, boxes),
        points=KeptPoints(level=cells // 50, position=cells % 50, main_gt=main_gt, valuable_weight=weight),
    )


def make_targets(view: LabeledView) -> SoftTargets:
    rng = np.random.default_rng([view.key.view, view.key.image_id])
    return SoftTargets(
        edge_logits=rng.normal(0, 3, (len(view.points), 4, BINS)).astype(np.float32),
        cls_logits=rng.normal(-3, 2, (view.points.main_count, CLASSES)).astype(np.float32),
    )


def make_dense(view: LabeledView) -> DenseOutputs:
    """Random codes at every position."""
    rng, positions = np.random.default_rng(view.key), len(Pyramid(STRIDES, 0).grid(view.geometry.padded_hw))
    return DenseOutputs(
        classes=rng.integers(0, 40, (positions, CLASSES)).astype(np.uint8),
        distances=rng.integers(0, 128, (positions, 4)).astype(np.uint16),
        tail_units=-int(rng.integers(0, 9999)),
    )


def make_store_case(precision: Precision = QUANTIZED) -> StoreCase:
    """14 views in 4 partitions: gaps between the image ids, views without points, views without boxes.

    The third partition has no point at all.
    """
    sizes = [(20, 3), (0, 2), (9, 0), (31, 1), (5, 2), (12, 4), (0, 0), (8, 2)]
    sizes += [(0, 1), (0, 0), (0, 3), (0, 0), (17, 1), (3, 1)]
    keys = [ViewKey(10 + 7 * (number // 2) ** 2, number % 2) for number in range(len(sizes))]
    return store_case_of([make_view(key, *size) for key, size in zip(keys, sizes, strict=True)], precision)


def store_case_of(
    views: Sequence[LabeledView],
    precision: Precision = QUANTIZED,
    targets: Sequence[SoftTargets] | None = None,
    **layout: Any,
) -> StoreCase:
    """The store of some views, whose targets are random if not given; ``layout`` is of ``StoreSchema``."""
    table = ViewIndex.from_views(views)
    defaults = {
        "bins": BINS,
        "num_classes": CLASSES,
        "strides": STRIDES,
        "views_per_partition": 4,
        "fingerprint": {"teacher": {"weights": "abc", "reg_max": 4}, "views": ["plain", "flip"]},
        "provenance": {"teacher": "random numbers"},
        "chunk_rows": CHUNK_ROWS,
    }
    schema = fit_schema(StoreSchema(precision=precision, **defaults | layout), table)
    targets = targets or [make_targets(view) for view in views]
    if schema.dense:
        targets = [replace(soft, dense=make_dense(view)) for soft, view in zip(targets, views, strict=True)]
    return StoreCase(views=views, targets=targets, table=table, schema=schema)


def random_store_case(images: int, *, views_per_partition: int, most_points: int) -> StoreCase:
    """Two views of each image; every fifth view has no points, and every seventh image no boxes."""
    rng = np.random.default_rng(images)
    views = []
    for row, key in enumerate(ViewKey(3 * image + 1, view) for image in range(images) for view in range(2)):
        points = 0 if row % 5 == 3 else int(rng.integers(1, most_points + 1))
        views.append(make_view(key, points, 0 if key.image_id % 7 == 0 else int(rng.integers(1, 5))))
    return store_case_of(views, dense=DensePrecision(), views_per_partition=views_per_partition)


def write_one(scratch: Path, store_case: StoreCase, index: int) -> None:
    rows = store_case.schema.partition_views(index)
    write_views(scratch, index, store_case.views[rows], store_case.targets[rows])


def write_views(
    scratch: Path, index: int, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> None:
    require_views(scratch, index, views)
    write_partition(scratch, index, quantize_partition(read_schema(scratch), views, targets))


def write_all(scratch: Path, store_case: StoreCase, order: Iterable[int]) -> None:
    init(scratch, store_case.schema, store_case.table)
    for index in order:
        write_one(scratch, store_case, index)


def write_remaining(scratch: Path, output: Path, store_case: StoreCase) -> set[int]:
    """What the stage does: lock, begin or resume, write what is missing, finalise.

    Returns:
        The partitions that were finished already.
    """
    with lock_scratch(scratch):
        init(scratch, store_case.schema, store_case.table)
        finished = finished_partitions(scratch)
        for index in sorted(set(range(store_case.schema.partitions)) - finished):
            write_one(scratch, store_case, index)
        finalise(scratch, output)
    return finished


def write_store(folder: Path, store_case: StoreCase) -> Path:
    """A finished store."""
    write_remaining(folder / "scratch", folder / "targets.zarr", store_case)
    return folder / "targets.zarr"


def content_of(folder: Path) -> Content:
    """Every file below ``folder``: two stores are the same to the byte if these are equal."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def values_of(value: Any) -> Values:
    """Two views are the same to the bit if these are equal."""
    if is_dataclass(value):
        return [each for field in fields(value) for each in values_of(getattr(value, field.name))]
    array = np.asarray(np.nan if value is None else value)
    return [(array.dtype.str, array.shape, array.tobytes())]


def flip_middle(path: Path) -> None:
    flip_bit(path, path.stat().st_size // 2)


def flip_bit(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(bytes(content))
