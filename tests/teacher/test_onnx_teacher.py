"""An ONNX teacher through the pipeline: a store as of any teacher, and a student of its geometry."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from onnx_cases import (
    BINS,
    OFFSET,
    STRIDES,
    clairvoyant_description,
    clairvoyant_manifest,
    config,
    write,
    write_clairvoyant,
    write_description,
)
from teacher_cases import DETECTOR, LOSSLESS, QUANTIZED
from training_cases import FULL, student, trained

from pipeline.core.errors import ConfigError
from pipeline.detector.gfl import load_detector, save_detector
from pipeline.onnx.models import import_onnx
from pipeline.teacher.inputs import StoreInputs, load_inputs
from pipeline.views.box_ops import box_iou, decode_boxes, expected_distances


@pytest.fixture
def setup(tmp_path: Path) -> StoreInputs:
    """A taken clairvoyant."""
    manifest = clairvoyant_manifest(tmp_path / "images")
    write_clairvoyant(manifest, tmp_path / "c.onnx")
    description = write_description(clairvoyant_description("c.onnx"), tmp_path / "c.yaml")
    import_onnx(description, manifest.categories, tmp_path / "teacher.safetensors")
    return load_inputs(config(QUANTIZED), manifest, tmp_path / "teacher.safetensors")


def test_boxes_decoded_from_stored_points_are_the_annotated_ones(tmp_path: Path, setup: StoreInputs) -> None:
    """The clairvoyant speaks at points of offset 0.5: any other place of a point would move its boxes."""
    store = write(setup, tmp_path)
    assert store.conventions == setup.spec.conventions
    assert store.fingerprint["geometry"] == {"strides": list(STRIDES), "bins": BINS, "cell_offset": OFFSET}
    overlaps = []
    for read in map(store.read, store.keys):
        view, main = read.view, read.view.points.main_region
        assert view.geometry.fit == "stretch"
        grid = setup.spec.pyramid.grid(view.geometry.padded_hw)
        cells = grid.flatten(view.points.level[main], view.points.position[main])
        distances = expected_distances(torch.from_numpy(read.edge_logits()[main]))
        scaled = distances * torch.from_numpy(grid.point_strides[cells])[:, None]
        boxes = decode_boxes(torch.from_numpy(grid.points[cells]), scaled)
        overlaps.append(box_iou(boxes, torch.from_numpy(view.boxes_xyxy[view.points.main_gt[main]])))
    iou = torch.cat(overlaps)
    assert len(iou) > 20
    assert iou.median() > 0.97


def test_views_of_another_size_and_another_precision_are_refused(tmp_path: Path, setup: StoreInputs) -> None:
    weights, half = tmp_path / "teacher.safetensors", replace(config(LOSSLESS), forward_precision="float16")
    with pytest.raises(ConfigError, match=r"cache_teacher\.views\.scales: expected \[64, 64\]"):
        load_inputs(config(QUANTIZED, side=96), setup.view_set.manifest, weights)
    with pytest.raises(ConfigError, match="forward_precision: expected float32"):
        load_inputs(half, setup.view_set.manifest, weights)


def test_a_student_takes_over_its_teachers_conventions(tmp_path: Path, setup: StoreInputs) -> None:
    detector = replace(DETECTOR, reg_max=BINS - 1, num_classes=2)
    taught = trained(replace(student(FULL), detector=detector), write(setup, tmp_path), setup.view_set)
    save_detector(taught.model, tmp_path / "student.safetensors", {})
    conventions = load_detector(tmp_path / "student.safetensors").conventions
    assert conventions == taught.model.conventions == setup.spec.conventions
