"""What a store holds of its teacher: from the network's own outputs to the reader."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from store_cases import content_of
from teacher_cases import LOSSLESS, QUANTIZED, small_inputs, small_teacher, small_view_set
from training_cases import IMAGES, store_of

from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.detector.head import RawOutputs
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.attributes import diff, read_attributes
from pipeline.teacher.dense import dense_outputs
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.images import apply_view, network_input, read_image
from pipeline.views.types import LabeledView

DENSE, EXACT = DensePrecision(floor=0.005), DensePrecision(floor=0)
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def live(view_set: ViewSet, view: LabeledView) -> RawOutputs:
    """The network's outputs for a view, by no code that batches or selects."""
    image = read_image(*view_set.manifest.image_file(view_set.manifest.image(view.key.image_id)))
    pixels = apply_view(image, view.geometry, GFL_PREPROCESSING)
    with torch.inference_mode():
        model = small_teacher(view_set.manifest).model
        return model(network_input(pixels, view.geometry.padded_hw, GFL_PREPROCESSING))


def distances_of(raw: RawOutputs) -> NDArray[np.float64]:
    edges = raw.edge_logits[0].double().numpy()
    shares = np.exp(edges - edges.max(-1, keepdims=True))
    return (shares / shares.sum(-1, keepdims=True)) @ np.arange(edges.shape[-1])


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_lossless_store_holds_the_networks_own_outputs(stores: Path, everywhere: bool) -> None:
    """At every kept point; with classes of the valuable region, and at every position, if they are stored."""
    view_set = small_view_set(stores, IMAGES)
    options = {"dense": EXACT, "valuable_classes": True} if everywhere else {}
    store = store_of(stores, LOSSLESS, **options)
    assert list(store.keys) == view_set.keys()
    assert store.statistics["points"] == sum(len(view.points) for view in view_set)
    for view in view_set:
        raw, stored = live(view_set, view), store.read(view.key)
        starts = np.cumsum([0, *(height * width for height, width in raw.sizes)])[:-1]
        index = starts[view.points.level] + view.points.position
        classes = raw.cls_logits[0, index].numpy()
        main = classes[view.points.main_region]
        np.testing.assert_allclose(stored.edge_logits(), raw.edge_logits[0, index], **NEAR)
        np.testing.assert_allclose(store[view.key].cls_logits, main, **NEAR)
        kept = stored.soft_targets().cls_logits
        np.testing.assert_allclose(kept, classes if everywhere else main, **NEAR)
        np.testing.assert_array_equal(stored.view.boxes_xyxy, view.boxes_xyxy)
        np.testing.assert_array_equal(stored.view.points.main_gt, view.points.main_gt)
        if everywhere:
            dense = store.read_dense(view.key)
            np.testing.assert_allclose(dense.classes, raw.cls_logits[0], **NEAR)
            np.testing.assert_allclose(dense.distances, distances_of(raw), **NEAR)


def test_scores_and_distances_at_every_position_are_the_teachers_to_a_step(stores: Path) -> None:
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, QUANTIZED, dense=DENSE)
    total, entries = 0.0, 0
    for view in view_set:
        raw, dense = live(view_set, view), store.read_dense(view.key)
        logits = raw.cls_logits[0].double().numpy()
        assert dense.classes.dtype == np.uint8
        assert np.abs(dense.edge_distances() - distances_of(raw)).max() <= 1 / 64 + 1e-4
        above = logits >= np.log(0.005 / 0.995)
        assert np.array_equal(above, dense.classes > 0)
        assert np.abs(dense.scores[dense.classes] - 1 / (1 + np.exp(-logits)))[above].max() < 0.013
        total, entries = total + logits[~above].sum(), entries + int((~above).sum())
    recorded = store.statistics["dense"]
    assert recorded["tail_entries"] == entries > 0
    assert recorded["tail_log_odds"] == pytest.approx(total / entries, abs=1e-3)


def test_a_decoder_written_from_the_description_alone_equals_the_reader(stores: Path) -> None:
    store = store_of(stores, QUANTIZED, dense=DENSE)
    attributes = read_attributes(store.path)
    (rule,) = re.findall(r"higher by \(([^:]+):", attributes["quantizer"])
    (floor,) = re.findall(r"log\(([.\d]+) / ", attributes["quantizer"])
    steps = {float(score): float(step) for step, score in re.findall(r"([.\d]+) below ([.\d]+)", rule)}
    (last,) = re.findall(r"([.\d]+) otherwise", rule)
    log_odds = [attributes["statistics"]["dense"]["tail_log_odds"], np.log(float(floor) / (1 - float(floor)))]
    while len(log_odds) < 256:
        score = 1 / (1 + np.exp(-log_odds[-1]))
        log_odds.append(log_odds[-1] + next((steps[s] for s in sorted(steps) if score < s), float(last)))
    log_odds = np.array(log_odds)
    root, per_partition = zarr.open_group(store.path, mode="r"), attributes["schema"]["views_per_partition"]
    shard, row = attributes["schema"]["dense"]["rows_per_shard"], 0
    for number, key in enumerate(store.keys):
        height, width = root["views/geometry"][number][4:6].tolist()
        rows = sum(-(-height // stride) * -(-width // stride) for stride in attributes["schema"]["strides"])
        row = number // per_partition * shard if number % per_partition == 0 else row
        codes, boxes = (root[f"dense/{name}"][row : row + rows] for name in ("cls_codes", "box_codes"))
        dense = store.read_dense(key)
        np.testing.assert_allclose(dense.scores[dense.classes], 1 / (1 + np.exp(-log_odds[codes])), rtol=1e-5)
        np.testing.assert_array_equal(dense.edge_distances(), np.cumsum(boxes.astype(int) - 128, axis=0) / 32)
        row += rows


@pytest.mark.parametrize(
    ("options", "changed"), [({"dense": DENSE}, "dense"), ({"valuable_classes": True}, "main/")]
)
def test_all_else_is_as_in_an_ordinary_store_which_does_not_name_what_it_lacks(
    stores: Path, options: dict[str, object], changed: str
) -> None:
    more, less = (content_of(store_of(stores, QUANTIZED, **each).path) for each in (options, {}))
    (name,) = options
    assert name.encode() in more["zarr.json"]
    assert name.encode() not in less["zarr.json"]
    same = [name for name in less if not name.startswith(changed) and name != "zarr.json"]
    assert {name: more[name] for name in same} == {name: less[name] for name in same}


def test_an_output_that_is_not_finite_stops_the_run_wherever_it_is(stores: Path) -> None:
    view_set = small_view_set(stores, IMAGES)
    (view,) = view_set.in_rows(slice(1))
    raw = live(view_set, view)
    kept = view_set.pyramid.grid(view.geometry.padded_hw).flatten(view.points.level, view.points.position)
    free = next(row for row in range(raw.cls_logits.shape[1]) if row not in kept)
    with torch.inference_mode():
        raw.cls_logits[0, free, 0] = torch.nan
    with pytest.raises(TeacherError, match=f"image_id={view.key.image_id}, view=0: expected finite"):
        list(dense_outputs(raw, DENSE).read([view]))


def test_a_fingerprint_names_what_came_later_only_where_it_is_used(stores: Path) -> None:
    """Stores from before it could be chosen stay good."""
    view_set = small_view_set(stores, IMAGES)
    plain = small_inputs(view_set, QUANTIZED).fingerprint
    assert list(plain["teacher"]) == ["architecture", "weights", "batch_size"]
    assert not {"dense", "valuable_classes"} & set(plain)
    for options, path in (
        ({"forward_precision": "float16"}, "teacher.forward_precision"),
        ({"dense": DENSE}, "dense"),
        ({"valuable_classes": True}, "valuable_classes"),
    ):
        assert diff(small_inputs(view_set, QUANTIZED, **options).fingerprint, plain)[0] == path
