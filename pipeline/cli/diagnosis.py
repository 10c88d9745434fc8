"""Is a teacher's description right? Every fault that can be named is tried out on a few annotated images."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from pipeline.cli.agreement import Agreement, measure_agreement
from pipeline.core.errors import TeacherError
from pipeline.detector.config import Suppression
from pipeline.evaluation.detect import decode_views, view_at
from pipeline.evaluation.postprocess import Detections
from pipeline.onnx.description import EDGE_ORDER, OnnxDescription
from pipeline.onnx.model import OnnxHandle, OnnxModel, class_columns
from pipeline.views.conventions import Preprocessing
from pipeline.views.geometry import ResizeMode, ViewGeometry
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest

LEAST_GAIN = 4.0
"""An alternative is suspected if the objects are found better by this many standard errors."""
LEAST_CALIBRATION = 0.5
"""Or if its scores err by less than this share of those described."""
LEAST_AP = 0.95
"""And only if its AP is no lower than this share; the images are few."""

YOLO_FILL = 114
"""Gray level around a letterbox, where the description has none."""

CANDIDATES = 100
"""Positions of a level that are decoded: wrong class outputs would make all of them detections."""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A description that differs in one point, and what would be wrong if it were the better one."""

    fault: str
    remedy: str
    """Keys and values to write instead."""
    description: OnnxDescription


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An alternative that agrees better with the annotations."""

    alternative: Alternative
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Outcome of a check."""

    described: Agreement
    suspects: tuple[Suspect, ...]
    """The best first."""
    tried: int


def alternatives(description: OnnxDescription) -> Iterator[Alternative]:
    """Every description that differs by one usual fault."""
    yield from _other_points(description)
    yield from _other_classes(description)
    yield from _other_edges(description)
    yield from _other_colors(description.preprocessing, description)
    yield from _other_fits(description.preprocessing, description)


def _other_points(description: OnnxDescription) -> Iterator[Alternative]:
    points = description.points
    offset = 0.0 if points.cell_offset else 0.5
    yield Alternative(
        fault="boxes are shifted by half a cell",
        remedy=f"points.cell_offset: {offset}",
        description=replace(description, points=replace(points, cell_offset=offset)),
    )
    order = "column_major" if points.order == "row_major" else "row_major"
    yield Alternative(
        fault="rows and columns of the points are swapped",
        remedy=f"points.order: {order}",
        description=replace(description, points=replace(points, order=order)),
    )
    one_tensor = len(description.cls.tensors.names) == len(description.edges.tensors.names) == 1
    if one_tensor and len(points.strides) > 1:
        strides = points.strides[::-1]
        yield Alternative(
            fault="levels are in the opposite order",
            remedy=f"points.strides: {list(strides)}",
            description=replace(description, points=replace(points, strides=strides)),
        )


def _other_classes(description: OnnxDescription) -> Iterator[Alternative]:
    classes = description.cls
    through = classes.activation == "none"
    yield Alternative(
        fault="class logits are already through a sigmoid" if through else "class outputs are logits",
        remedy=f"cls.activation: {'sigmoid' if through else 'none'}",
        description=replace(description, cls=replace(classes, activation="sigmoid" if through else "none")),
    )


def _other_edges(description: OnnxDescription) -> Iterator[Alternative]:
    for order in permutations(EDGE_ORDER):
        if order != description.edges.order:
            yield Alternative(
                fault="edges are out of order",
                remedy=f"edges.order: [{', '.join(order)}]",
                description=replace(description, edges=replace(description.edges, order=order)),
            )


def _other_colors(pixels: Preprocessing, description: OnnxDescription) -> Iterator[Alternative]:
    other = replace(pixels, color="BGR" if pixels.color == "RGB" else "RGB")
    swapped = replace(other, mean=pixels.mean[::-1], std=pixels.std[::-1])
    yield Alternative(
        fault="channels are swapped",
        remedy=f"preprocessing.color: {other.color}",
        description=replace(description, preprocessing=other),
    )
    if swapped != other:
        yield Alternative(
            fault="channels are swapped, and mean and std with them",
            remedy=f"preprocessing.color: {other.color}, mean: {list(swapped.mean)}, "
            f"std: {list(swapped.std)}",
            description=replace(description, preprocessing=swapped),
        )


def _other_fits(pixels: Preprocessing, description: OnnxDescription) -> Iterator[Alternative]:
    if description.input.size is None:
        return
    fits: tuple[ResizeMode, ...] = ("stretch", "letterbox", "letterbox_centred")
    for fit in fits:
        if fit != pixels.fit:
            fill = None if fit == "stretch" else pixels.fill or YOLO_FILL
            yield Alternative(
                fault="images are fitted into the input in another way",
                remedy=f"preprocessing.fit: {fit}, fill: {'null' if fill is None else fill}",
                description=replace(description, preprocessing=replace(pixels, fit=fit, fill=fill)),
            )


@dataclass(frozen=True, kw_only=True)
class Check:
    """A description, and the annotated images that it is tried on."""

    description: OnnxDescription
    weights: Path
    manifest: Manifest
    scale: tuple[int, int]
    """``(width, height)`` of the input, or ``(long, short)`` edges that images are fitted into."""
    device: torch.device

    def run(self) -> Verdict:
        """Compare the description with its alternatives.

        Raises:
            TeacherError: The file is not as described.
            DatasetError: An image cannot be read.
        """
        outputs: dict[Preprocessing, Sequence[Seen]] = {}

        def agreement(description: OnnxDescription) -> Agreement:
            # The model runs once for all descriptions of equal pixels.
            if description.preprocessing not in outputs:
                outputs[description.preprocessing] = list(self._see(description.preprocessing))
            return self._agreement(description, outputs[description.preprocessing])

        described = agreement(self.description)
        tried = list(alternatives(self.description))
        suspects = []
        for each in tried:
            # What the outputs themselves rule out is no alternative.
            with suppress(TeacherError):
                suspects.append(Suspect(alternative=each, agreement=agreement(each.description)))
        better = [suspect for suspect in suspects if is_better(suspect.agreement, described)]
        better.sort(key=lambda suspect: (-suspect.agreement.ap, suspect.agreement.score_error))
        return Verdict(described=described, suspects=tuple(better), tried=len(tried))

    @cached_property
    def _model(self) -> OnnxModel:
        model = self._files(self.description).load()
        model.place(self.device)
        return model

    def _files(self, description: OnnxDescription) -> OnnxHandle:
        columns = class_columns(description, self.manifest.categories)
        return OnnxHandle(description=description, weights=self.weights, columns=columns)

    def _see(self, preprocessing: Preprocessing) -> "Iterator[Seen]":
        for record in self.manifest.images:
            geometry = view_at(record, self.scale, preprocessing.fit)
            image = read_image(*self.manifest.image_file(record))
            pixels = apply_view(image, geometry, preprocessing)
            images = batch_images([pixels], [geometry.padded_hw], preprocessing)
            yield Seen(image_id=record.image_id, geometry=geometry, tensors=self._model.tensors(images))

    def _agreement(self, description: OnnxDescription, seen: "Sequence[Seen]") -> Agreement:
        files = self._files(description)
        spec = dataclasses.replace(files.spec, suppression=quick(description.suppression))
        found: dict[int, Detections] = {}
        for view in seen:
            raw = files.layout.read(view.tensors, view.geometry.padded_hw)
            (found[view.image_id],) = decode_views(raw, spec, [view.geometry])
        return measure_agreement(self.manifest, found)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a model said to one image."""

    image_id: int
    geometry: ViewGeometry
    tensors: dict[str, Tensor]


def quick(suppression: Suppression) -> Suppression:
    """The same, with fewer candidates."""
    return replace(suppression, pre_nms_top=min(suppression.pre_nms_top, CANDIDATES))


def is_better(found: Agreement, described: Agreement) -> bool:
    """Whether an alternative agrees so much better that the description is doubtful."""
    if found.ap < LEAST_AP * described.ap:
        return False
    surer = found.score_error < LEAST_CALIBRATION * described.score_error
    # Higher scores for everything, right or wrong, would find the objects "better", too.
    as_sure = described.score_error >= LEAST_CALIBRATION * found.score_error
    return surer or (as_sure and found.gain_over(described) > LEAST_GAIN)
