"""Is a teacher's description right? Every fault that can be named is tried out on a few annotated images."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from pipeline.cli.options import override
from pipeline.core.config import structure
from pipeline.core.errors import TeacherError, listed
from pipeline.detector.head import EDGES
from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import Result, decode_views, to_results, view_at
from pipeline.onnx.description import EDGE_ORDER, ClassConfig, OnnxDescription
from pipeline.onnx.model import OnnxModel
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.views.box_ops import box_iou
from pipeline.views.classes import class_columns
from pipeline.views.conventions import GFL_PREPROCESSING, Preprocessing
from pipeline.views.geometry import ViewGeometry, ViewsConfig
from pipeline.views.images import apply_view, network_input, read_image
from pipeline.views.manifest import Manifest
from pipeline.views.summary import AREA_EDGES

FOUND_IOU = 0.5
MIN_GAIN, MIN_FIT_GAIN = 4.0, 2.0
"""An alternative is suspected if the objects are found better by this many standard errors; another fit costs
far less than any other fault."""
MAX_CALIBRATION = 0.5
"""Or if its scores err by less than this share of those described."""
MIN_AP_RATIO = 0.95
"""And only if its AP is no lower than this share; the images are few."""

MIN_AP, MIN_RECALL = 0.05, 0.2
"""Below them a teacher teaches nothing, and no alternative is proposed: recall is of whatever class."""
MIN_CLASS_SHARE = 0.5
"""Of the objects that are found, at least this share is found as what they are."""

OTHER_FIT = "images are fitted into the input in another way"
LAYOUTS = ("edges_first", "bins_first")

Seen = tuple[int, ViewGeometry, dict[str, Tensor]]
"""Id of an image, its view, and a model's outputs for it."""
Faults = Mapping[str, Mapping[str, Iterable[Any]]]
"""What may stand in a description without a fault, by dotted key: the first value of each, the second and so
on; what stands there already is no fault."""


class Agreement(NamedTuple):
    """How far detections agree with annotations; every figure is between 0 and 1."""

    ap: float
    """COCO's."""
    recall: float
    """Share of the objects with a detection of their class at IoU 0.5."""
    blind_recall: float
    """The same, of any class."""
    score_error: float
    """Mean over the detections of ``|score - IoU|`` with the best object of their class."""
    confusion: Tensor
    """``Tensor[classes, classes]``: objects by their class and that of the surest detection at IoU 0.5."""
    merits: Tensor
    """``Tensor[objects]``: largest ``score * IoU`` of a detection of the object's class, 0 without one."""

    @property
    def weakness(self) -> str | None:
        """Why what agrees so little is no teacher; ``None`` if it finds the objects."""
        boxes = f"boxes on {self.blind_recall:.1%} of the objects"
        if self.blind_recall < MIN_RECALL:
            return f"expected boxes on at least {MIN_RECALL:.0%} of the objects, but got {boxes}"
        if self.recall < MIN_CLASS_SHARE * self.blind_recall:
            return (
                f"there are {boxes}, but only {self.recall:.1%} have "
                "the object's class: compare the order of classes with that of the file's channels"
            )
        return f"expected an AP of at least {MIN_AP}, but got {self.ap:.3f}" if self.ap < MIN_AP else None


class Suspect(NamedTuple):
    """An alternative that agrees better with the annotations."""

    fault: str
    remedy: str
    agreement: Agreement

    def is_better(self, described: Agreement) -> bool:
        """Whether it is good, and so much better that the description is doubtful."""
        other = self.agreement
        if other.weakness or other.ap < MIN_AP_RATIO * described.ap:
            return False
        surer = other.score_error < MAX_CALIBRATION * described.score_error
        # Higher scores for everything, right or wrong, would find the objects "better", too.
        as_sure = described.score_error >= MAX_CALIBRATION * other.score_error
        gain = (other.merits - described.merits).double()
        error, fits = gain.std() / len(gain) ** 0.5, self.fault == OTHER_FIT and other.ap > described.ap
        return surer or (as_sure and bool(gain.mean() > error * (MIN_FIT_GAIN if fits else MIN_GAIN)))


class Verdict(NamedTuple):
    """Outcome of a check, the best suspect first."""

    described: Agreement
    suspects: Sequence[Suspect]
    true_score: float
    """Mean probability of the true class at the main region's points."""


def diagnose(model: OnnxModel, manifest: Manifest, scale: tuple[int, int], device: torch.device) -> Verdict:
    """Compare a model's description with its alternatives on annotated images.

    ``scale`` is the ``(width, height)`` of the input, or the ``(long, short)`` edges that images are fitted
    into. A ``TeacherError`` if the file is not as described, a ``DatasetError`` for an image.
    """
    model.to_inference(device)
    description = model.description

    @cache
    def outputs(preprocessing: Preprocessing) -> list[Seen]:
        seen = []
        for record in manifest.images:
            geometry = view_at(record, scale, preprocessing.fit)
            pixels = apply_view(read_image(*manifest.image_file(record)), geometry, preprocessing)
            images = network_input(pixels, geometry.padded_hw, preprocessing)
            seen.append((record.image_id, geometry, model.tensors(images)))
        return seen

    def agreement(other: OnnxDescription) -> Agreement:
        columns = class_columns(other.known_classes, manifest.categories, f"{other.name}: classes")
        described = type(model)(other, model.weights, columns)
        return measure_agreement(described, manifest, outputs(other.preprocessing))

    described, seen = agreement(description), outputs(description.preprocessing)
    axis = 1 if description.edges.tensors.channels == "first" else -1
    channels = min(seen[0][-1][name].shape[axis] for name in description.edges.tensors.names)
    columns = class_columns(description.known_classes, manifest.categories, description.name)
    recognized = _recognized_order(description.classes, columns, described.confusion)
    suspects = []
    for fault, remedy, other in alternatives(description, channels, recognized):
        with suppress(TeacherError):  # what the outputs themselves rule out is no alternative
            suspects.append(Suspect(fault, remedy, agreement(other)))
    better = [suspect for suspect in suspects if suspect.is_better(described)]
    better.sort(key=lambda suspect: (-suspect.agreement.ap, suspect.agreement.score_error))
    return Verdict(described, better, _true_score(model, manifest, scale, seen))


def measure_agreement(model: OnnxModel, manifest: Manifest, seen: Sequence[Seen]) -> Agreement:
    """Compare a model's detections in every image of a manifest with its annotations."""
    suppression = model.spec.suppression
    # Wrong class outputs would make detections of all positions of a level.
    few = replace(suppression, pre_nms_top=min(suppression.pre_nms_top, 100))
    spec, ids = dataclasses.replace(model.spec, suppression=few), [c.category_id for c in manifest.categories]
    objects, errors, results = list[Tensor](), list[Tensor](), list[Result]()
    confusion = torch.zeros(len(ids), len(ids))
    for image_id, geometry, tensors in seen:
        (detected,) = decode_views(model.read(tensors, geometry.padded_hw), spec, [geometry])
        results.extend(to_results(image_id, detected, ids))
        truth = manifest.training_boxes(image_id)
        labels = torch.from_numpy(truth.labels)
        iou = box_iou(torch.from_numpy(truth.boxes_xyxy)[:, None], detected.boxes_xyxy[None])
        if len(detected.labels):
            best = ((iou >= FOUND_IOU) * detected.scores).max(dim=1)
            pairs = torch.stack([labels, detected.labels[best.indices]])[:, best.values > 0]
            confusion.index_put_(tuple(pairs), torch.ones(()), accumulate=True)
        same = iou * (labels[:, None] == detected.labels[None])
        objects.append(torch.stack([_best(iou, 1), _best(same, 1), _best(same * detected.scores, 1)]))
        errors.append((detected.scores - _best(same, 0)).abs())
    blind, known, merits = torch.cat(objects, dim=1)
    # Means of nothing, without an object or a detection, are 0.
    figures = ((known >= FOUND_IOU).float(), (blind >= FOUND_IOU).float(), torch.cat(errors).float())
    recall, blind_recall, score_error = (float(each.mean().nan_to_num()) for each in figures)
    return Agreement(
        ap=(evaluate(manifest, results, AREA_EDGES).summary["AP"] or 0.0) / 100,
        recall=recall,
        blind_recall=blind_recall,
        score_error=score_error,
        confusion=confusion,
        merits=merits,
    )


def _best(iou: Tensor, axis: int) -> Tensor:
    """Largest value along an axis; 0 where there is none."""
    return iou.amax(dim=axis) if iou.shape[axis] else iou.new_zeros(iou.shape[1 - axis])


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


def alternatives(
    description: OnnxDescription, channels: int, recognized: Sequence[ClassConfig]
) -> Iterator[tuple[str, str, OnnxDescription]]:
    """Every description that differs by one usual fault, once, after the fault and what to write instead.

    ``channels`` have the tensors of the edges; ``recognized`` are the classes as the objects suggest them.
    """
    tried = {description}
    faults = {**_pixel_faults(description), **_output_faults(description, channels, recognized)}
    rows = ((fault, keys, row) for fault, keys in faults.items() for row in zip(*keys.values(), strict=True))
    for fault, keys, row in rows:
        values = dict(zip(keys, row, strict=True))
        other = structure(OnnxDescription, override(description.to_json(), values), description.name)
        if other not in tried and "classes" in values:
            yield fault, f"classes in the order {listed([row.name for row in other.classes], 3)}", other
        elif other not in tried:
            yield fault, ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items()), other
        tried.add(other)


def _output_faults(description: OnnxDescription, channels: int, recognized: Sequence[ClassConfig]) -> Faults:
    """What may be wrong with points, edges and classes."""
    edges, strides, rows = description.edges, description.points.strides, description.classes
    one_tensor = len(description.cls.tensors.names) == len(edges.tensors.names) == 1
    start, end = (edges.tensors.columns or (0,))[0], channels
    bins, rest = divmod(end - start, EDGES)
    others: dict[str, Any] = {"edges.bins": [bins], "edges.tensors.columns": [(start, end)]}
    return {
        "boxes are shifted by half a cell": {"points.cell_offset": (0.0, 0.5)},
        "rows and columns of the points are swapped": {"points.order": ("column_major", "row_major")},
        "levels are in the opposite order": {"points.strides": [strides[::-1]] if one_tensor else []},
        "class logits are already through a sigmoid": {"cls.activation": ["sigmoid"]},
        "class outputs are logits": {"cls.activation": ["none"]},
        "edges are out of order": {"edges.order": permutations(EDGE_ORDER)},
        "bins and edges are swapped in the channels": {"edges.layout": LAYOUTS},
        "edges are already through a softmax": {"edges.activation": ["softmax"] * 2, "edges.layout": LAYOUTS},
        "edges have another number of bins": others if bins > 1 and not rest and bins != edges.bins else {},
        "class channels are shifted by one": {"classes": ([*rows[1:], rows[0]], [rows[-1], *rows[:-1]])},
        "class channels are in the order of the names": {"classes": [sorted(rows, key=lambda row: row.name)]},
        "class channels are in the order of the ids": {
            "classes": [sorted(rows, key=lambda row: row.category_id)]
        },
        "classes are confused with one another": {"classes": [recognized]},
    }


def _pixel_faults(description: OnnxDescription) -> Faults:
    """The order of the colors, every usual way to scale gray levels of 0-255, and the fit."""
    pixels = description.preprocessing
    mean, std, turn = pixels.mean, pixels.std, -1 if pixels.color == "BGR" else 1
    means = [(0.0,) * 3, (0.0,) * 3, (127.5,) * 3, GFL_PREPROCESSING.mean[::turn]]
    stds = [(1.0,) * 3, (255.0,) * 3, (127.5,) * 3, GFL_PREPROCESSING.std[::turn]]
    for by in (255, 1 / 255):
        means.append(tuple(value * by for value in mean))
        stds.append(tuple(value * by for value in std))
    swapped = {"preprocessing.color": ["BGR" if pixels.color == "RGB" else "RGB"]}
    turned = {"preprocessing.mean": [mean[::-1]], "preprocessing.std": [std[::-1]]}
    gray = pixels.fill or 114  # YOLO's
    fills = {"letterbox": gray, "letterbox_centred": gray, "stretch": None}
    fits = [fit for fit in fills if description.input.size and fit != pixels.fit]
    return {
        "channels are swapped": swapped,
        "channels are swapped, and mean and std with them": {**swapped, **turned},
        "pixels are scaled otherwise": {"preprocessing.mean": means, "preprocessing.std": stds},
        OTHER_FIT: {"preprocessing.fit": fits, "preprocessing.fill": [fills[fit] for fit in fits]},
    }


def _recognized_order(
    rows: Sequence[ClassConfig], columns: Sequence[int], confusion: Tensor
) -> list[ClassConfig]:
    """Classes as objects suggest, the most frequent confusions first; ``columns`` are channels by label."""
    order, left = list(rows), confusion + 0.5 * torch.eye(len(columns))  # without objects, as described
    for _ in columns:
        label, guess = divmod(int(left.argmax()), len(columns))
        order[columns[guess]] = rows[columns[label]]
        left[label], left[:, guess] = -1, -1
    return order
