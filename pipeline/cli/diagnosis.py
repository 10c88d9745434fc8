"""Is a teacher's description right? Every fault that can be named is tried out on a few annotated images."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, permutations
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from pipeline.cli.agreement import Agreement, measure_agreement
from pipeline.cli.options import override
from pipeline.core.config import structure
from pipeline.core.errors import TeacherError
from pipeline.detector.head import EDGES
from pipeline.evaluation.detect import decode_views, view_at
from pipeline.onnx.description import EDGE_ORDER, ClassConfig, OnnxDescription
from pipeline.onnx.model import OnnxModel
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.views.classes import class_columns
from pipeline.views.conventions import GFL_PREPROCESSING, Preprocessing
from pipeline.views.geometry import ViewGeometry, ViewsConfig
from pipeline.views.images import apply_view, network_input, read_image
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

Seen = tuple[int, ViewGeometry, dict[str, Tensor]]
"""Id of an image, its view, and a model's outputs for it."""

CANDIDATES = 100
"""Positions of a level that are decoded: wrong class outputs would make all of them detections."""

YOLO_FILL = 114
"""Gray level around a letterbox, where the description has none."""

OTHER_FIT = "images are fitted into the input in another way"

SHOWN_CLASSES = 3

Alternative = tuple[str, str, OnnxDescription]
"""What would be wrong if it were the better one, what to write instead, and a description with that."""
Change = tuple[str, dict[str, Any]]
"""A fault, and what stands by dotted key in a description without it."""


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
    channels = min(seen[0][-1][name].shape[axis] for name in edges.names)
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
        images = network_input(pixels, geometry.padded_hw, preprocessing)
        yield record.image_id, geometry, model.tensors(images)


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
    views, regions = ViewsConfig(scales=(scale,), flips=(False,)), RegionsConfig(vlr="paper", vlr_gamma=1.0)
    view_set = ViewSet(manifest, model.spec.strides, views, regions, model.spec.conventions)
    scores = []
    for (_, _, tensors), view in zip(seen, view_set, strict=True):
        raw, main = model.read(tensors, view.geometry.padded_hw), view.points.main_region
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


def alternatives(description: OnnxDescription, channels: int) -> Iterator[Alternative]:
    """Every description that differs by one usual fault; ``channels`` have the tensors of the edges."""
    changes = _outputs(description), _edges(description, channels), _pixels(description)
    for fault, values in chain(*changes):
        remedy = ", ".join(
            f"{key.partition('.')[2] if number else key}: {_as_yaml(value)}"
            for number, (key, value) in enumerate(values.items())
        )
        changed = structure(OnnxDescription, override(description.to_json(), values), description.name)
        yield fault, remedy, changed
    rows = description.classes
    yield from _reordered(description, "class channels are shifted by one", [*rows[1:], rows[0]])
    yield from _reordered(description, "class channels are shifted by one", [rows[-1], *rows[:-1]])
    by_name = sorted(rows, key=lambda row: row.name)
    yield from _reordered(description, "class channels are in the order of the names", by_name)
    by_id = sorted(rows, key=lambda row: row.category_id)
    yield from _reordered(description, "class channels are in the order of the ids", by_id)


def in_recognized_order(
    description: OnnxDescription, columns: Sequence[int], confusion: Tensor
) -> Iterator[Alternative]:
    """Classes in the order in which the objects are recognized, if that is another one.

    ``columns`` are the channels of the dataset's labels; the most frequent confusions come first.
    """
    channels = range(len(description.classes))
    pairs = [divmod(pair, len(columns)) for pair in confusion.flatten().argsort(descending=True).tolist()]
    seen = [(columns[guess], columns[label]) for label, guess in pairs if confusion[label, guess]]
    meant: dict[int, int] = {}
    for channel, other in [*seen, *zip(channels, channels, strict=True)]:
        if channel not in meant and other not in meant.values():
            meant[channel] = other
    left = iter(sorted(set(channels) - set(meant.values())))
    rows = [description.classes[meant[channel] if channel in meant else next(left)] for channel in channels]
    yield from _reordered(description, "classes are confused with one another", rows)


def _reordered(
    description: OnnxDescription, fault: str, rows: Sequence[ClassConfig]
) -> Iterator[Alternative]:
    """A description whose channels mean other classes, if they do."""
    if tuple(rows) != description.classes:
        first = ", ".join(row.name for row in rows[:SHOWN_CLASSES])
        more = ", ..." if len(rows) > SHOWN_CLASSES else ""
        remedy = f"classes in the order {first}{more}"
        yield fault, remedy, replace(description, classes=tuple(rows))


def _as_yaml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _outputs(description: OnnxDescription) -> Iterator[Change]:
    """The points, and what was done to the classes."""
    points = description.points
    yield "boxes are shifted by half a cell", {"points.cell_offset": 0.0 if points.cell_offset else 0.5}
    order = "column_major" if points.order == "row_major" else "row_major"
    yield "rows and columns of the points are swapped", {"points.order": order}
    names = len(description.cls.tensors.names), len(description.edges.tensors.names)
    if names == (1, 1) and len(points.strides) > 1:
        yield "levels are in the opposite order", {"points.strides": points.strides[::-1]}
    if description.cls.activation == "none":
        yield "class logits are already through a sigmoid", {"cls.activation": "sigmoid"}
    else:
        yield "class outputs are logits", {"cls.activation": "none"}


def _edges(description: OnnxDescription, channels: int) -> Iterator[Change]:
    """The order of the edges; their channels with bins first, after a softmax, or with other bins."""
    edges, columns = description.edges, description.edges.tensors.columns
    values: dict[str, Any]
    for order in permutations(EDGE_ORDER):
        if order != edges.order:
            yield "edges are out of order", {"edges.order": order}
    layout = "bins_first" if edges.layout == "edges_first" else "edges_first"
    yield "bins and edges are swapped in the channels", {"edges.layout": layout}
    for layout in ("edges_first", "bins_first"):
        values = {"edges.activation": "softmax", "edges.layout": layout}
        yield "edges are already through a softmax", values
    start, end = columns[0] if columns else 0, channels
    bins = (end - start) // EDGES
    if bins > 1 and bins != edges.bins and EDGES * bins == end - start:
        values = {"edges.bins": bins, "edges.tensors.columns": (start, end)}
        yield "edges have another number of bins", values


def _pixels(description: OnnxDescription) -> Iterator[Change]:
    """The order of the colors, every usual way to scale gray levels of 0-255, and the fit."""
    pixels = description.preprocessing
    color = "BGR" if pixels.color == "RGB" else "RGB"
    swapped = {"preprocessing.color": color}
    yield "channels are swapped", swapped
    given, turned = (pixels.mean, pixels.std), (pixels.mean[::-1], pixels.std[::-1])
    if turned != given:
        values = {**swapped, "preprocessing.mean": turned[0], "preprocessing.std": turned[1]}
        yield "channels are swapped, and mean and std with them", values
    turn = -1 if pixels.color == "BGR" else 1
    scales: dict[str, tuple[tuple[float, ...], ...]] = {
        "0 to 255": ((0.0,) * 3, (1.0,) * 3),
        "0 to 1": ((0.0,) * 3, (255.0,) * 3),
        "-1 to 1": ((127.5,) * 3, (127.5,) * 3),
        "ImageNet's mean and std": (GFL_PREPROCESSING.mean[::turn], GFL_PREPROCESSING.std[::turn]),
        "255 times mean and std": tuple(tuple(value * 255 for value in row) for row in given),
        "mean and std over 255": tuple(tuple(value * (1 / 255) for value in row) for row in given),
    }
    for name, (mean, std) in scales.items():
        if (mean, std) != given:
            values = {"preprocessing.mean": mean, "preprocessing.std": std}
            yield f"pixels are scaled otherwise ({name})", values
    for fit in ("stretch", "letterbox", "letterbox_centred"):
        if description.input.size is not None and fit != pixels.fit:
            fill = None if fit == "stretch" else pixels.fill or YOLO_FILL
            yield OTHER_FIT, {"preprocessing.fit": fit, "preprocessing.fill": fill}
