"""Is a teacher's description right? Every fault that can be named is tried out on a few annotated images."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from pipeline.cli.agreement import Agreement, measure_agreement
from pipeline.cli.alternatives import OTHER_FIT, alternatives, in_recognized_order
from pipeline.core.errors import TeacherError
from pipeline.evaluation.detect import decode_views, view_at
from pipeline.onnx.description import OnnxDescription
from pipeline.onnx.model import OnnxModel
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.views.classes import class_columns
from pipeline.views.conventions import Preprocessing
from pipeline.views.geometry import ViewGeometry, ViewsConfig
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.manifest import Manifest

MIN_GAIN = 4.0
"""An alternative is suspected if the objects are found better by this many standard errors."""
MIN_FIT_GAIN = 2.0
"""So is another fit, which costs far less than any other fault."""
MAX_CALIBRATION = 0.5
"""Or if its scores err by less than this share of those described."""
MIN_AP_RATIO = 0.95
"""And only if its AP is no lower than this share; the images are few."""

MIN_AP = 0.05
"""Below it a teacher teaches nothing, and no alternative is proposed either."""
MIN_RECALL = 0.2
"""As ``MIN_AP``: share of the objects that are found, whatever their class."""
MIN_CLASS_SHARE = 0.5
"""Of the objects that are found, at least this share is found as what they are."""

CANDIDATES = 100
"""Positions of a level that are decoded: wrong class outputs would make all of them detections."""


class Suspect(NamedTuple):
    """An alternative that agrees better with the annotations."""

    fault: str
    remedy: str
    agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Outcome of a check."""

    described: Agreement
    suspects: Sequence[Suspect]
    """The best first."""
    tried: int
    true_score: float
    """Mean probability of the true class at the main region's points."""


class Seen(NamedTuple):
    """A model's outputs for one image."""

    image_id: int
    geometry: ViewGeometry
    tensors: dict[str, Tensor]


def diagnose(model: OnnxModel, manifest: Manifest, scale: tuple[int, int], device: torch.device) -> Verdict:
    """Compare a model's description with its alternatives on annotated images.

    ``scale`` is the ``(width, height)`` of the input, or the ``(long, short)`` edges that images are fitted
    into.

    Raises:
        TeacherError: The file is not as described.
        DatasetError: An image cannot be read.
    """
    model.to_inference(device)
    description = model.description
    outputs: dict[Preprocessing, Sequence[Seen]] = {}

    def agreement(other: OnnxDescription) -> Agreement:
        # The model runs once for all descriptions of equal pixels.
        if other.preprocessing not in outputs:
            outputs[other.preprocessing] = list(_see(model, manifest, scale, other.preprocessing))
        columns = class_columns(other.known_classes, manifest.categories, f"{other.name}: classes")
        return _agreement(type(model)(other, model.weights, columns), manifest, outputs[other.preprocessing])

    described = agreement(description)
    seen = outputs[description.preprocessing]
    edges = description.edges.tensors
    axis = 1 if edges.channels == "first" else -1
    channels = min(seen[0].tensors[name].shape[axis] for name in edges.names)
    columns = class_columns(description.known_classes, manifest.categories, description.name)
    tried = [
        *alternatives(description, channels),
        *in_recognized_order(description, columns, described.confusion),
    ]
    suspects = []
    for fault, remedy, other in tried:
        # What the outputs themselves rule out is no alternative.
        with suppress(TeacherError):
            suspects.append(Suspect(fault, remedy, agreement(other)))
    better = [suspect for suspect in suspects if is_better(suspect, described)]
    better.sort(key=lambda suspect: (-suspect.agreement.ap, suspect.agreement.score_error))
    return Verdict(
        described=described,
        suspects=better,
        tried=len(tried),
        true_score=_true_score(model, manifest, scale, seen),
    )


def _see(
    model: OnnxModel, manifest: Manifest, scale: tuple[int, int], preprocessing: Preprocessing
) -> Iterator[Seen]:
    for record in manifest.images:
        geometry = view_at(record, scale, preprocessing.fit)
        pixels = apply_view(read_image(*manifest.image_file(record)), geometry, preprocessing)
        images = batch_images([pixels], [geometry.padded_hw], preprocessing)
        yield Seen(record.image_id, geometry, model.tensors(images))


def _agreement(model: OnnxModel, manifest: Manifest, seen: Sequence[Seen]) -> Agreement:
    suppression = model.spec.suppression
    few = replace(suppression, pre_nms_top=min(suppression.pre_nms_top, CANDIDATES))
    spec = dataclasses.replace(model.spec, suppression=few)
    detections = {
        image_id: decode_views(model.read(tensors, geometry.padded_hw), spec, [geometry])[0]
        for image_id, geometry, tensors in seen
    }
    return measure_agreement(manifest, detections)


def _true_score(model: OnnxModel, manifest: Manifest, scale: tuple[int, int], seen: Sequence[Seen]) -> float:
    view_set = ViewSet(
        manifest=manifest,
        strides=model.spec.strides,
        views=ViewsConfig(scales=(scale,), flips=(False,)),
        regions=RegionsConfig(vlr="paper", vlr_gamma=1.0),
        conventions=model.spec.conventions,
    )
    scores = []
    for output, view in zip(seen, view_set, strict=True):
        raw, main = model.read(output.tensors, view.geometry.padded_hw), view.points.main_region
        grid = model.spec.pyramid.grid(view.geometry.padded_hw)
        rows = grid.flatten(view.points.level[main], view.points.position[main])
        labels = view.labels[view.points.main_gt[main]]
        scores.append(raw.cls_logits[0, torch.from_numpy(rows), torch.from_numpy(labels)].sigmoid())
    return float(torch.cat(scores).mean())


def weakness(agreement: Agreement) -> str | None:
    """Why what agrees so little with the annotations is no teacher; ``None`` if it finds the objects."""
    if agreement.blind_recall < MIN_RECALL:
        recall = f"{agreement.blind_recall:.1%}"
        return f"expected boxes on at least {MIN_RECALL:.0%} of the objects, but got {recall}"
    if agreement.recall < MIN_CLASS_SHARE * agreement.blind_recall:
        return (
            f"boxes lie on {agreement.blind_recall:.0%} of the objects, but only {agreement.recall:.1%} have "
            "the object's class: compare the order of classes with that of the file's channels"
        )
    if agreement.ap < MIN_AP:
        return f"expected an AP of at least {MIN_AP}, but got {agreement.ap:.3f}"
    return None


def is_better(suspect: Suspect, described: Agreement) -> bool:
    """Whether an alternative, good in itself, agrees so much better that the description is doubtful."""
    other = suspect.agreement
    if weakness(other) or other.ap < MIN_AP_RATIO * described.ap:
        return False
    surer = other.score_error < MAX_CALIBRATION * described.score_error
    # Higher scores for everything, right or wrong, would find the objects "better", too.
    as_sure = described.score_error >= MAX_CALIBRATION * other.score_error
    fits = suspect.fault == OTHER_FIT and other.ap > described.ap
    return surer or (as_sure and other.gain_over(described) > (MIN_FIT_GAIN if fits else MIN_GAIN))
