"""ONNX Runtime as a detector: whatever a file takes and gives, the logits are the same; faults are named."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx_cases import (
    SHAPES,
    SIDE,
    clairvoyant_description,
    clairvoyant_manifest,
    write_clairvoyant,
    write_description,
)
from teacher_cases import DETECTOR

from pipeline.core.errors import TeacherError
from pipeline.core.files import sha256_of_file
from pipeline.detector.gfl import GFL, save_detector
from pipeline.onnx.model import OnnxModel
from pipeline.onnx.models import import_onnx, open_model, read_onnx, sha256_of_onnx
from pipeline.views.classes import Category
from pipeline.views.conventions import GFL_PREPROCESSING

CPU = torch.device("cpu")
CATEGORIES = tuple(Category(category_id=i, name=name) for i, name in SHAPES.items())
TWO = (Category(category_id=1, name="one"), Category(category_id=2, name="two"))
IMAGES = torch.stack([torch.full((3, SIDE, SIDE), 8.0 * number) for number in (3, 1, 4, 1, 5)])


@pytest.fixture(scope="module")
def gfl() -> GFL:
    torch.manual_seed(0)
    return GFL(DETECTOR).eval()


@pytest.fixture
def clairvoyant(tmp_path: Path) -> Path:
    write_clairvoyant(clairvoyant_manifest(tmp_path), tmp_path / "c.onnx")
    return write_description(clairvoyant_description("c.onnx"), tmp_path / "c.yaml")


def loaded(path: Path, categories: tuple[Category, ...] = TWO) -> OnnxModel:
    model = read_onnx(path, categories).load()
    model.to_inference(CPU)
    return model


def described(folder: Path, **changes: Any) -> Path:
    """Another description of the clairvoyant; ``input__name`` is ``input.name``."""
    document = clairvoyant_description("c.onnx")
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (document[section] if section else document)[name] = value
    return write_description(document, folder / "changed.yaml")


class LevelMaps(torch.nn.Module):
    """A GFL whose outputs are the maps of its levels, channels first."""

    def __init__(self, model: GFL) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model.bbox_head(self.model.neck(self.model.backbone(images)))
        return tuple(cls for cls, _ in outputs) + tuple(edges for _, edges in outputs)


# The exporter that needs no further package is called legacy.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("axes", "width"), [({0: "batch", 2: "height", 3: "width"}, 96), ({}, 64)])
def test_an_exported_gfl_says_what_the_gfl_says(
    gfl: GFL, tmp_path: Path, axes: dict[int, str], width: int
) -> None:
    """One tensor a level, channels first, of any size: by description alone."""
    names = {part: [f"{part}_{level}" for level in range(3)] for part in ("cls", "edges")}
    torch.onnx.export(
        LevelMaps(gfl).eval(),
        (torch.zeros(2 if axes else 1, 3, 64, 64),),
        str(tmp_path / "c.onnx"),
        input_names=["images"],
        output_names=names["cls"] + names["edges"],
        dynamic_axes={"images": axes},
        dynamo=False,
    )
    tensors = {part: {"names": names[part], "channels": "first", "columns": None} for part in names}
    path = described(
        tmp_path,
        name="exported GFL",
        input__size=None,
        preprocessing__fit="keep_ratio",
        preprocessing__mean=list(GFL_PREPROCESSING.mean),
        preprocessing__std=list(GFL_PREPROCESSING.std),
        points__cell_offset=0.0,
        cls__tensors=tensors["cls"],
        edges__tensors=tensors["edges"],
        edges__bins=DETECTOR.bins,
        classes=[category._asdict() for category in CATEGORIES],
    )
    model, images = loaded(path, CATEGORIES), torch.randn(3, 3, 64, width)
    raw = model(images)
    with torch.inference_mode():
        expected = gfl(images)
    assert model.spec == replace(gfl.spec, name="exported GFL")
    assert raw.sizes == expected.sizes
    torch.testing.assert_close(raw.cls_logits, expected.cls_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(raw.edge_logits, expected.edge_logits, rtol=1e-4, atol=1e-4)


def take(dtype: int, shape: list[Any], operator: str, **attributes: Any) -> Callable[[ModelProto], None]:
    """Another input, from which an operator makes what the graph took."""

    def change(model: ModelProto) -> None:
        graph = model.graph
        for node in graph.node:
            node.input[:] = ["planes" if name == "images" else name for name in node.input]
        graph.input.pop()
        graph.input.append(helper.make_tensor_value_info("images", dtype, shape))
        graph.node.insert(0, helper.make_node(operator, ["images"], ["planes"], **attributes))

    return change


def give(operator: str, numbers: list[int]) -> Callable[[ModelProto], None]:
    """Another output: the rows through one more operator, with a list of numbers."""

    def change(model: ModelProto) -> None:
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), "numbers"))
        graph.node[-1].output[0] = "before"
        graph.node.append(helper.make_node(operator, ["before", "numbers"], ["rows"]))
        graph.output.pop()
        graph.output.append(onnx.ValueInfoProto(name="rows"))

    return change


def of_integers(model: ModelProto) -> None:
    model.graph.node[-1].CopyFrom(helper.make_node("Cast", ["said"], ["rows"], to=TensorProto.INT64))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64


FLOAT, PLANES = TensorProto.FLOAT, [3, SIDE, SIDE]
BYTES = take(TensorProto.UINT8, ["batch", *PLANES], "Cast", to=FLOAT)


def change_graph(path: Path, change: Callable[[ModelProto], None]) -> None:
    model = onnx.load(str(path))
    change(model)
    onnx.save(model, str(path))


@pytest.mark.parametrize("images", [1, 3, 5])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(take(TensorProto.FLOAT16, ["batch", *PLANES], "Cast", to=FLOAT), id="half"),
        pytest.param(BYTES, id="bytes"),
        pytest.param(
            take(FLOAT, ["batch", SIDE, SIDE, 3], "Transpose", perm=[0, 3, 1, 2]), id="channels last"
        ),
        pytest.param(take(FLOAT, [3, *PLANES], "Identity"), id="fixed batch"),
        pytest.param(give("Squeeze", [0]), id="without batch"),
        pytest.param(give("Reshape", [1, 84, 34]), id="reshaped"),
    ],
)
def test_files_of_any_format_give_the_same_logits(
    clairvoyant: Path, change: Callable[[ModelProto], None], images: int
) -> None:
    expected = loaded(clairvoyant)(IMAGES[:images]).edge_logits
    assert len(expected.unique(dim=0)) == {1: 1, 3: 3, 5: 4}[images]
    change_graph(clairvoyant.with_name("c.onnx"), change)
    assert torch.equal(loaded(clairvoyant)(IMAGES[:images]).edge_logits, expected)


NO_TENSOR = {"names": ["no"], "channels": "last", "columns": [0, 2]}


@pytest.mark.parametrize(
    ("change", "described_as", "message"),
    [
        (take(FLOAT, ["batch", 1, SIDE, SIDE], "Relu"), {}, "index: 1 Got: 3 Expected: 1"),
        (of_integers, {}, "tensor 'rows': expected an array of floating-point, but got int64"),
        (give("Reshape", [1, 7, 34]), {}, "got an error: .*cannot be reshaped to the requested shape"),
        (BYTES, {"preprocessing__std": [255] * 3}, r"std \[1, 1, 1\], for it takes bytes"),
        (None, {"input__name": "data"}, r"expected an input 'data' .*images.* missing"),
        (None, {"input__size": [96, 96]}, "index: 2 Got: 96 Expected: 64"),
        (None, {"cls__tensors": NO_TENSOR}, r"c\.onnx: .* described tensors, .*\(no\) does not exist"),
        (None, {"sha256": "0" * 64}, r"c\.onnx: expected the file of sha256 0000"),
        (None, {"file": "c.yaml"}, r"c\.yaml: expected an ONNX file that can be run"),
        (None, {"file": "none.onnx"}, r"none\.onnx: expected the teacher's file, but there is none"),
        (None, {"classes": [{"category_id": 1, "name": "one"}] * 2}, r"expected one class 'one' \(id 1\)"),
    ],
)
def test_what_is_not_as_described_is_named_in_a_line_before_anything_is_written(
    clairvoyant: Path,
    tmp_path: Path,
    change: Callable[[ModelProto], None] | None,
    described_as: dict[str, Any],
    message: str,
) -> None:
    if change:
        change_graph(clairvoyant.with_name("c.onnx"), change)
    with pytest.raises(TeacherError, match=message) as raised:
        import_onnx(described(tmp_path, **described_as), TWO, tmp_path / "run/teacher.safetensors")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_tensors_within_the_graph_need_the_package_onnx_and_any_file_onnxruntime(
    clairvoyant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An intermediate tensor; the output is called rows.
    inner = described(tmp_path, cls__tensors={"names": ["said"], "channels": "last", "columns": [0, 2]})
    assert torch.equal(loaded(inner)(IMAGES).cls_logits, loaded(clairvoyant)(IMAGES).cls_logits)
    monkeypatch.setitem(sys.modules, "onnx", None)  # as if it were not installed
    loaded(clairvoyant)
    with pytest.raises(
        TeacherError, match=r"reading said from within c\.onnx needs the package onnx: install"
    ):
        loaded(inner)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TeacherError, match=r"package onnxruntime: install it with `uv sync --extra onnx`"):
        loaded(clairvoyant)


def test_runs_take_one_thread_each(clairvoyant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, session = [], onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda source, options, **others: seen.append(options) or session(source, options, **others),
    )
    loaded(clairvoyant)
    assert [options.intra_op_num_threads for options in seen] == [1]


def test_a_device_without_a_provider_is_refused(clairvoyant: Path) -> None:
    with pytest.raises(TeacherError, match=r"expected an ONNX Runtime for device meta.*set LDP_DEVICE=cpu"):
        read_onnx(clairvoyant, TWO).load().to_inference(torch.device("meta"))


@pytest.mark.parametrize("beside", [False, True])
def test_a_taken_teacher_depends_on_nothing_outside_its_folder(
    clairvoyant: Path, tmp_path: Path, beside: bool
) -> None:
    """Weights in a file beside the graph are hashed with it, and become part of the copy."""
    graph, data, weights = tmp_path / "c.onnx", tmp_path / "w.bin", tmp_path / "runs/teacher.safetensors"
    expected = loaded(clairvoyant)(IMAGES).edge_logits
    if beside:
        options = {"save_as_external_data": True, "location": data.name, "size_threshold": 1024}
        onnx.save(onnx.load(str(graph)), str(graph), **options)
    import_onnx(clairvoyant, TWO, weights)
    original, digest = read_onnx(clairvoyant, TWO), sha256_of_onnx(graph)
    if beside:
        data.write_bytes(data.read_bytes()[:-1] + b"?")
        assert sha256_of_onnx(graph) != digest
        data.unlink()
        with pytest.raises(TeacherError, match=r"w\.bin: expected the weights of .*c\.onnx, but there is no"):
            import_onnx(clairvoyant, TWO, tmp_path / "again.safetensors")
    graph.unlink()
    taken = open_model(weights, TWO)
    assert (taken.spec, taken.architecture) == (original.spec, original.architecture)
    assert beside or sha256_of_file(taken.weights) == digest
    model = taken.load()
    model.to_inference(CPU)
    assert torch.equal(model(IMAGES).edge_logits, expected)


def test_a_gfl_is_found_by_weights_or_description_and_refused_for_other_classes(
    gfl: GFL, tmp_path: Path
) -> None:
    save_detector(gfl, tmp_path / "teacher.safetensors", {"classes": CATEGORIES})
    by_weights, by_description = (
        open_model(tmp_path / f"teacher.{suffix}", CATEGORIES) for suffix in ("safetensors", "json")
    )
    assert by_weights == by_description
    assert by_weights.spec == gfl.spec
    swapped = [one._replace(name=other.name) for one, other in zip(CATEGORIES, CATEGORIES[::-1], strict=True)]
    with pytest.raises(TeacherError, match="trained for other classes than the dataset's: expected class"):
        open_model(tmp_path / "teacher.json", swapped)
