"""An ONNX teacher through the pipeline: a store as of any teacher, and a student of its geometry."""

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from onnx_cases import (
    BINS,
    OFFSET,
    SIDE,
    STRIDES,
    clairvoyant_description,
    clairvoyant_manifest,
    config,
    export_gfl,
    gfl_description,
    write,
    write_clairvoyant,
    write_description,
)
from teacher_cases import DETECTOR, LOSSLESS, QUANTIZED, small_teacher, small_view_set
from training_cases import trained

from pipeline.core.errors import ConfigError
from pipeline.detector.gfl import GFL, load_detector, save_detector
from pipeline.losses.config import DistillationConfig
from pipeline.onnx.models import import_onnx
from pipeline.student.config import StudentConfig
from pipeline.teacher.extractor import ThreadCounts
from pipeline.teacher.inputs import load_inputs
from pipeline.training.config import TrainConfig
from pipeline.views.box_ops import box_iou, decode_boxes, expected_distances
from pipeline.views.manifest import Manifest

CPU = torch.device("cpu")
STUDENT = replace(DETECTOR, reg_max=BINS - 1, num_classes=2)


def test_a_store_of_an_exported_teacher_holds_what_that_of_the_teacher_holds(tmp_path: Path) -> None:
    view_set = small_view_set(tmp_path)
    teacher = small_teacher(view_set.manifest)
    assert isinstance(teacher.model, GFL)
    save_detector(teacher.model, tmp_path / "torch" / "teacher.safetensors", {})
    export_gfl(teacher.model, tmp_path / "gfl.onnx")
    description = write_description(gfl_description(teacher.model, "gfl.onnx"), tmp_path / "gfl.yaml")
    import_onnx(description, view_set.manifest.categories, tmp_path / "onnx" / "teacher.safetensors")
    stores = [
        write(load_inputs(config(LOSSLESS), view_set.manifest, folder / "teacher.safetensors"), folder)
        for folder in (tmp_path / "torch", tmp_path / "onnx")
    ]
    assert stores[0].keys == stores[1].keys
    for key in stores[0].keys:
        one, other = (store.read(key) for store in stores)
        np.testing.assert_array_equal(one.view.points.position, other.view.points.position)
        np.testing.assert_allclose(one.edge_logits(), other.edge_logits(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(one.cls_logits(), other.cls_logits(), rtol=1e-3, atol=1e-3)
    assert stores[0].fingerprint["geometry"] == stores[1].fingerprint["geometry"]
    assert stores[0].fingerprint["teacher"] != stores[1].fingerprint["teacher"]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return clairvoyant_manifest(tmp_path / "images")


@pytest.fixture
def weights(tmp_path: Path, manifest: Manifest) -> Path:
    """A taken clairvoyant."""
    write_clairvoyant(manifest, tmp_path / "c.onnx")
    description = write_description(clairvoyant_description("c.onnx"), tmp_path / "c.yaml")
    import_onnx(description, manifest.categories, tmp_path / "teacher.safetensors")
    return tmp_path / "teacher.safetensors"


def test_a_store_knows_its_teachers_conventions(tmp_path: Path, manifest: Manifest, weights: Path) -> None:
    setup = load_inputs(config(QUANTIZED), manifest, weights)
    store = write(setup, tmp_path)
    assert store.conventions == setup.spec.conventions
    assert store.fingerprint["geometry"] == {"strides": list(STRIDES), "bins": BINS, "cell_offset": OFFSET}
    assert store.view(store.keys[0]).geometry.fit == "stretch"


def test_boxes_decoded_from_stored_points_are_the_annotated_ones(
    tmp_path: Path, manifest: Manifest, weights: Path
) -> None:
    """The clairvoyant speaks at points of offset 0.5: any other place of a point would move its boxes."""
    setup = load_inputs(config(QUANTIZED), manifest, weights)
    store = write(setup, tmp_path)
    stored = [store.read(key) for key in store.keys]
    overlaps = []
    for read in stored:
        view, main = read.view, read.view.points.main_region
        grid = setup.spec.pyramid.grid(view.geometry.padded_hw)
        cells = grid.flatten(view.points.level[main], view.points.position[main])
        distances = expected_distances(torch.from_numpy(read.edge_logits()[main]))
        scaled = distances * torch.from_numpy(grid.point_strides[cells])[:, None]
        boxes = decode_boxes(torch.from_numpy(grid.points[cells]), scaled)
        overlaps.append(box_iou(boxes, torch.from_numpy(view.boxes_xyxy[view.points.main_gt[main]])))
    iou = torch.cat(overlaps)
    assert len(iou) > 20
    assert iou.median() > 0.97


def test_what_is_said_does_not_depend_on_how_many_runs_there_are_at_once(
    manifest: Manifest, weights: Path
) -> None:
    setup = load_inputs(config(LOSSLESS), manifest, weights)
    views = list(setup.view_set)
    teacher = setup.load_teacher(CPU)
    said = []
    for cores in (1, 3):
        with teacher.threads(ThreadCounts.of(CPU, cores, SIDE * SIDE)) as threads:
            said.append([soft.edge_logits.tobytes() for soft in teacher.compute(threads, views)[0]])
    assert said[0] == said[1]


def test_a_teacher_is_refused_views_of_another_size(manifest: Manifest, weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"cache_teacher\.views\.scales: expected \[64, 64\]"):
        load_inputs(config(QUANTIZED, side=96), manifest, weights)


def test_a_teacher_that_says_itself_in_what_it_computes_is_refused_another_precision(
    manifest: Manifest, weights: Path
) -> None:
    lower = replace(config(QUANTIZED), forward_precision="float16")
    with pytest.raises(ConfigError, match=r"forward_precision: expected float32, .* but got float16"):
        load_inputs(lower, manifest, weights)


@pytest.mark.slow
def test_a_student_of_the_teachers_geometry_trains_and_takes_over_its_conventions(tmp_path: Path) -> None:
    """The teacher says whatever it says of stretched BGR images, at points of offset 0.5."""
    view_set = small_view_set(tmp_path, 8)
    teacher = small_teacher(view_set.manifest).model
    assert isinstance(teacher, GFL)
    export_gfl(teacher, tmp_path / "gfl.onnx")
    document = gfl_description(teacher, "gfl.onnx")
    document["preprocessing"] |= {"fit": "stretch", "color": "BGR", "sampling": "corner"}
    document["points"]["cell_offset"] = 0.5
    description = write_description(document, tmp_path / "gfl.yaml")
    import_onnx(description, view_set.manifest.categories, tmp_path / "teacher.safetensors")
    setup = load_inputs(config(QUANTIZED), view_set.manifest, tmp_path / "teacher.safetensors")
    store = write(setup, tmp_path)
    taught = trained(student(epochs=40), store, view_set, log_every=16)
    # LD in the main region is weighted by the student's growing score; the others are not.
    terms = [row["loss_ld_vlr"] + row["loss_kd"] for row in taught.curve.values()]
    assert terms[-1] < 0.8 * terms[0]
    assert taught.model.conventions == setup.spec.conventions
    save_detector(taught.model, tmp_path / "student.safetensors", {})
    assert load_detector(tmp_path / "student.safetensors").conventions == setup.spec.conventions


def student(epochs: int) -> StudentConfig:
    training = TrainConfig(
        epochs=epochs,
        batch_size=4,
        optimizer="adamw",
        learning_rate=0.003,
        weight_decay=0.0,
        warmup_steps=0,
        decay="cosine",
        max_grad_norm=10.0,
    )
    loss = DistillationConfig(ld_weight=20, vlr_weight=20, ld_temperature=1, kd_weight=1, kd_temperature=2)
    return StudentConfig(detector=DETECTOR, train=training, loss=loss)
