"""A small ONNX teacher: a clairvoyant of one tensor for all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from teacher_cases import small_config
from torch import Tensor

from pipeline.codec.precision import Precision
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.config import CacheConfig
from pipeline.teacher.inputs import StoreInputs
from pipeline.teacher.layout import layout_store
from pipeline.teacher.run import write_store
from pipeline.views.box_ops import encode_distances
from pipeline.views.classes import Category
from pipeline.views.geometry import ViewsConfig
from pipeline.views.manifest import Annotation, ImageRecord, ImageTable, Manifest
from pipeline.views.pyramid import Pyramid

SHAPES = {1: "ellipse", 3: "rectangle", 4: "triangle", 7: "cross"}
"""Categories of the embedded dataset."""


def write_description(document: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


SIDE, STRIDES, BINS, OFFSET = 64, (8, 16, 32), 8, 0.5
LEVEL_OF_RED = 8
"""Images differ in their red: number times this, which is how the clairvoyant knows them."""


def clairvoyant_manifest(folder: Path, images: int = 12) -> Manifest:
    """Plain images with annotations that only a clairvoyant can know; their blue is another's red."""
    generator = np.random.default_rng(3)
    (folder / "val").mkdir(parents=True)
    records = []
    for number in range(images):
        color = (LEVEL_OF_RED * number, 0, LEVEL_OF_RED * ((number + 5) % images))
        Image.new("RGB", (SIDE, SIDE), color).save(folder / "val" / f"{number}.png")
        boxes = [_random_box(generator) for _ in range(3)]
        classes = [1 + int(generator.integers(2)) for _ in boxes]
        annotations = tuple(
            Annotation(10 * number + row, classes[row - 1], *box, area=box[2] * box[3], iscrowd=False)
            for row, box in enumerate(boxes, 1)
        )
        name = f"{number}.png"
        records.append(
            ImageRecord(image_id=number, file_name=name, height=SIDE, width=SIDE, annotations=annotations)
        )
    return Manifest(
        root=str(folder),
        folder="val",
        categories=(Category(category_id=1, name="one"), Category(category_id=2, name="two")),
        images=ImageTable.of(records),
    )


def _random_box(generator: np.random.Generator) -> tuple[float, float, float, float]:
    width, height = generator.uniform(12, 30, 2)
    x, y = generator.uniform(0, SIDE - width), generator.uniform(0, SIDE - height)
    return float(x), float(y), float(width), float(height)


def clairvoyant_rows(record: ImageRecord) -> NDArray[np.float32]:
    """``(points, 2 + 4 * bins)``: logits that decode to the annotations where a point reaches all edges."""
    grid = Pyramid(STRIDES, OFFSET).grid((SIDE, SIDE))
    points, strides = torch.from_numpy(grid.points), torch.from_numpy(grid.point_strides)
    cls = torch.full((len(points), 2), -6.0)
    edges = torch.zeros(len(points), 4, BINS)
    for annotation in record.annotations:
        x, y, width, height = annotation.box_xywh
        box = torch.tensor([x, y, x + width, y + height])
        distances = encode_distances(points, box) / strides[:, None]
        reaches = ((distances > 0) & (distances < BINS - 1)).all(dim=1)
        cls[reaches] = torch.where(torch.arange(2) == annotation.category_id - 1, 3.0, -6.0)
        edges[reaches] = _two_bins(distances[reaches])
    return torch.cat([cls, edges.flatten(1)], dim=1).numpy()


def _two_bins(distances: Tensor) -> Tensor:
    """Logits of distributions over the two bins next to a distance, with that mean."""
    probabilities = (1 - (distances[..., None] - torch.arange(BINS)).abs()).clamp(min=1e-7)
    return probabilities.log()


Rows = NDArray[np.float32]


def with_scores(rows: Rows) -> Rows:
    """Class logits through a sigmoid."""
    return np.concatenate([1 / (1 + np.exp(-rows[..., :2])), rows[..., 2:]], axis=-1)


def with_softmax(rows: Rows) -> Rows:
    """Edges through a softmax."""
    edges = torch.from_numpy(rows[..., 2:]).unflatten(-1, (4, BINS)).softmax(dim=-1).flatten(-2)
    return np.concatenate([rows[..., :2], edges.numpy()], axis=-1)


def with_bins_first(rows: Rows) -> Rows:
    """Bins before edges in the channels."""
    edges = rows[..., 2:].reshape(*rows.shape[:-1], 4, BINS).swapaxes(-1, -2)
    return np.concatenate([rows[..., :2], edges.reshape(*rows.shape[:-1], -1)], axis=-1)


def with_random_values(rows: Rows) -> Rows:
    """What a network without training would say."""
    return np.random.default_rng(0).standard_normal(rows.shape, np.float32)


def write_clairvoyant(manifest: Manifest, path: Path, edit: Callable[[Rows], Rows] = np.asarray) -> None:
    """An ONNX file that knows an image by its first channel, and looks up what it is to say."""
    table = edit(np.stack([clairvoyant_rows(record) for record in manifest.images]))
    constants = {
        "table": table,
        "level": np.array(LEVEL_OF_RED, np.float32),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Slice", ["images", "first", "second", "axis"], ["red"]),
        helper.make_node("ReduceMean", ["red"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "level"], ["number"]),
        helper.make_node("Round", ["number"], ["rounded"]),
        helper.make_node("Cast", ["rounded"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["said"], axis=0),
        helper.make_node("Identity", ["said"], ["rows"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", *table.shape[1:]])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [images], [rows], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


DESCRIPTION = """
name: clairvoyant
sha256: null
input: {name: images, size: [64, 64]}
preprocessing: {fit: stretch, fill: null, sampling: half_pixel, color: RGB, mean: [0, 0, 0], std: [1, 1, 1]}
points: {strides: [8, 16, 32], order: row_major, cell_offset: 0.5}
cls: {tensors: {names: [rows], channels: last, columns: [0, 2]}, activation: none}
edges: {tensors: {names: [rows], channels: last, columns: [2, 34]}, bins: 8, order: [l, t, r, b]}
suppression: {score_threshold: 0.05, iou: 0.6, max_detections: 100, pre_nms_top: 1000}
classes: [{category_id: 1, name: one}, {category_id: 2, name: two}]
"""


def clairvoyant_description(file: str) -> dict[str, Any]:
    """What ``write_clairvoyant`` wrote."""
    return {**yaml.safe_load(DESCRIPTION), "file": file}


def config(precision: Precision, side: int = SIDE) -> CacheConfig:
    """How the store of a small teacher is made."""
    return small_config(precision, views=ViewsConfig(scales=((side, side),), flips=(False,)))


def write(setup: StoreInputs, folder: Path) -> TargetStore:
    """Write the store of a teacher."""
    layout = layout_store(setup.view_set, setup.config, setup.spec, setup.fingerprint)
    teacher, output = setup.load_teacher(torch.device("cpu")), folder / "targets.zarr"
    write_store(layout, setup.view_set, teacher, scratch_root=folder, output=output)
    return TargetStore.open(output)
