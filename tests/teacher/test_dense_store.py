"""A store that also holds the teacher at every position: from the network to the reader."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from numpy.typing import NDArray
from store_cases import content_of
from teacher_cases import QUANTIZED, small_layout, small_teacher, small_view_set
from training_cases import store_of

from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import TeacherError
from pipeline.regions.view_set import ViewSet
from pipeline.store.format.attributes import read_attributes
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.dense import dense_outputs, probe_dense, say_if_larger
from pipeline.teacher.expected import estimate_bytes

DENSE = DensePrecision(floor=0.005)
EXACT = DensePrecision(floor=0)


def live(
    view_set: ViewSet, store: TargetStore
) -> dict[tuple[int, int], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Class logits and expected distances of every view, computed here from the network's own outputs."""
    teacher = small_teacher(view_set.manifest)
    outputs = {}
    for key in store.keys:
        raw = teacher.outputs_of(*teacher.batches([view_set.view(key)]))
        edges = raw.edge_logits[0].double().numpy()
        shares = np.exp(edges - edges.max(-1, keepdims=True))
        distances = (shares / shares.sum(-1, keepdims=True)) @ np.arange(edges.shape[-1])
        outputs[key] = (raw.cls_logits[0].double().numpy(), distances)
    return outputs


def test_scores_and_distances_are_the_teachers_to_a_step(stores: Path) -> None:
    view_set = small_view_set(stores, 8)
    store = store_of(stores, QUANTIZED, dense=DENSE)
    total, entries = 0.0, 0
    for key, (logits, distances) in live(view_set, store).items():
        dense = store.read_dense(key)
        assert dense.classes.dtype == np.uint8
        assert len(logits) == len(view_set.pyramid.grid(view_set.geometry(key).padded_hw))
        assert np.abs(dense.edge_distances() - distances).max() <= 1 / 64 + 1e-4
        above = logits >= np.log(0.005 / 0.995)
        assert np.array_equal(above, dense.classes > 0)
        scores = 1 / (1 + np.exp(-logits))
        assert np.abs(dense.class_scores() - scores)[above].max() < 0.013
        total, entries = total + logits[~above].sum(), entries + int((~above).sum())
    recorded = store.statistics["dense"]
    assert recorded["tail_entries"] == entries > 0
    assert recorded["tail_log_odds"] == pytest.approx(total / entries, abs=1e-3)


def test_a_lossless_part_is_the_teachers_own(stores: Path) -> None:
    view_set = small_view_set(stores, 8)
    store = store_of(stores, QUANTIZED, dense=EXACT)
    for key, (logits, distances) in live(view_set, store).items():
        dense = store.read_dense(key)
        np.testing.assert_allclose(dense.classes, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(dense.distances, distances, rtol=1e-4, atol=1e-4)


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
        np.testing.assert_allclose(dense.class_scores(), 1 / (1 + np.exp(-log_odds[codes])), rtol=1e-5)
        np.testing.assert_array_equal(dense.edge_distances(), np.cumsum(boxes.astype(int) - 128, axis=0) / 32)
        row += rows


def test_all_else_is_as_in_a_store_without_it(stores: Path) -> None:
    """But for the attributes, which say what is there."""
    with_dense, without = (content_of(store_of(stores, QUANTIZED, dense=each).path) for each in (DENSE, None))
    shared = {name: content for name, content in with_dense.items() if not name.startswith("dense")}
    assert shared.keys() == without.keys()
    assert {name for name in shared if shared[name] != without[name]} == {"zarr.json"}
    assert b"dense" not in without["zarr.json"]


def test_an_output_that_is_not_finite_stops_the_run_wherever_it_is(stores: Path) -> None:
    view_set = small_view_set(stores)
    teacher = small_teacher(view_set.manifest, dense=DENSE)
    (view,) = view_set.in_rows(slice(1))
    raw = teacher.outputs_of(*teacher.batches([view]))
    kept = view_set.pyramid.grid(view.geometry.padded_hw).flatten(view.points.level, view.points.position)
    (free,) = [row for row in range(raw.cls_logits.shape[1]) if row not in kept][:1]
    with torch.inference_mode():
        raw.cls_logits[0, free, 0] = torch.nan
    with pytest.raises(TeacherError, match=f"image_id={view.key.image_id}, view=0: expected finite"):
        list(dense_outputs(raw, DENSE).read([view]))


def test_the_estimate_is_a_bound_and_a_larger_result_is_said(
    stores: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view_set, store = small_view_set(stores, 8), store_of(stores, QUANTIZED, dense=DENSE)
    layout = small_layout(view_set, QUANTIZED, "w0", dense=DENSE)
    probed = probe_dense(small_teacher(view_set.manifest, dense=DENSE).run, view_set, layout.schema)
    assert 0.6 < store.statistics["bytes"] / estimate_bytes(layout.schema, layout.table, probed) <= 1
    say_if_larger(store.path, layout.schema, layout.table, probed)
    assert not caplog.records
    sizes = [path.stat().st_size for path in store.path.glob("dense/*/c/*/0")]
    positions = sum(len(view_set.pyramid.grid(view_set.geometry(key).padded_hw)) for key in store.keys)
    say_if_larger(store.path, layout.schema, layout.table, sum(sizes) / positions + 1e-6)
    assert not caplog.records
    say_if_larger(store.path, layout.schema, layout.table, sum(sizes) / positions - 1e-6)
    assert "the dense arrays take" in caplog.text
