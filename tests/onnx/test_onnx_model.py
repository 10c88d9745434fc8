"""ONNX Runtime as a detector: an exported GFL says what the GFL says, and faults are named."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
from onnx_cases import (
    SHAPES,
    SIDE,
    clairvoyant_description,
    clairvoyant_manifest,
    export_gfl,
    gfl_description,
    write_clairvoyant,
    write_description,
)
from teacher_cases import DETECTOR

from pipeline.core.errors import TeacherError
from pipeline.core.files import sha256_of_file
from pipeline.detector.gfl import GFL, save_detector
from pipeline.onnx import model as onnx_model
from pipeline.onnx.models import import_onnx, open_model, read_onnx
from pipeline.views.classes import Category

CPU = torch.device("cpu")
CATEGORIES = tuple(Category(category_id=i, name=name) for i, name in SHAPES.items())
TWO = (Category(category_id=1, name="one"), Category(category_id=2, name="two"))


@pytest.fixture(scope="module")
def gfl() -> GFL:
    torch.manual_seed(0)
    return GFL(DETECTOR).eval()


@pytest.fixture(scope="module")
def exported(gfl: GFL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_gfl(gfl, folder / "gfl.onnx")
    return write_description(gfl_description(gfl, "gfl.onnx"), folder / "gfl.yaml")


@pytest.fixture
def clairvoyant(tmp_path: Path) -> Path:
    write_clairvoyant(clairvoyant_manifest(tmp_path), tmp_path / "c.onnx")
    return write_description(clairvoyant_description("c.onnx"), tmp_path / "c.yaml")


def require_equal(gfl: GFL, description: Path, images: torch.Tensor) -> None:
    model = read_onnx(description, CATEGORIES).load()
    model.to_inference(CPU)
    found = model(images)
    with torch.inference_mode():
        expected = gfl(images)
    assert found.sizes == expected.sizes
    torch.testing.assert_close(found.cls_logits, expected.cls_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.edge_logits, expected.edge_logits, rtol=1e-4, atol=1e-4)


def test_an_exported_gfl_says_what_the_gfl_says(gfl: GFL, exported: Path) -> None:
    """One tensor a level, channels first, of any size: by description alone."""
    require_equal(gfl, exported, torch.randn(3, 3, 64, 96))
    assert read_onnx(exported, CATEGORIES).spec == replace(gfl.spec, name="exported GFL")


def test_a_file_of_one_image_a_run_takes_batches(gfl: GFL, tmp_path: Path) -> None:
    export_gfl(gfl, tmp_path / "gfl.onnx", fixed_batch=True)
    description = write_description(gfl_description(gfl, "gfl.onnx"), tmp_path / "gfl.yaml")
    require_equal(gfl, description, torch.randn(3, 3, 64, 64))


def test_tensors_within_the_graph_are_read_by_their_names(clairvoyant: Path, tmp_path: Path) -> None:
    document = clairvoyant_description("c.onnx")
    document["cls"]["tensors"]["names"] = ["said"]  # an intermediate one; the output is called rows
    inner = read_onnx(write_description(document, tmp_path / "inner.yaml"), TWO).load()
    outer = read_onnx(clairvoyant, TWO).load()
    images = torch.full((2, 3, SIDE, SIDE), 16.0)
    for model in (inner, outer):
        model.to_inference(CPU)
    torch.testing.assert_close(inner(images).cls_logits, outer(images).cls_logits, rtol=0, atol=0)


def test_runs_take_one_thread_each(clairvoyant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = import_module("onnxruntime")
    seen = []

    def session(source: str, options: object, **others: object) -> object:
        seen.append(options)
        return runtime_session(source, options, **others)

    runtime_session = runtime.InferenceSession
    monkeypatch.setattr(runtime, "InferenceSession", session)
    read_onnx(clairvoyant, TWO).load().to_inference(CPU)
    assert [options.intra_op_num_threads for options in seen] == [1]


def without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package were not installed."""

    def load(asked: str) -> ModuleType:
        if asked == name:
            raise ModuleNotFoundError(asked)
        return import_module(asked)

    monkeypatch.setattr(onnx_model, "import_module", load)


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    clairvoyant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("onnxruntime", monkeypatch)
    with pytest.raises(
        TeacherError, match=r"needs the package onnxruntime: install it with `uv sync --extra onnx`"
    ):
        read_onnx(clairvoyant, TWO).load().to_inference(CPU)
    without("onnx", monkeypatch)
    read_onnx(clairvoyant, TWO).load().to_inference(CPU)
    document = clairvoyant_description("c.onnx")
    document["cls"]["tensors"]["names"] = ["said"]
    inner = read_onnx(write_description(document, tmp_path / "inner.yaml"), TWO).load()
    with pytest.raises(
        TeacherError, match=r"reading said from within c\.onnx needs the package onnx: install"
    ):
        inner.to_inference(CPU)


def test_a_device_without_a_provider_is_refused(clairvoyant: Path) -> None:
    with pytest.raises(TeacherError, match=r"expected an ONNX Runtime for device meta.*set LDP_DEVICE=cpu"):
        read_onnx(clairvoyant, TWO).load().to_inference(torch.device("meta"))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("input", {"name": "data"}, r"expected one input 'data', but got images"),
        ("input", {"size": [96, 96]}, r"expected input\.size \[64, 64\], but got \(96, 96\)"),
        (
            "cls",
            {"tensors": {"names": ["no"], "channels": "last", "columns": [0, 2]}},
            r"a tensor 'no'.*rows",
        ),
    ],
)
def test_a_file_that_is_not_as_described_is_refused(
    clairvoyant: Path, tmp_path: Path, section: str, changes: dict[str, object], message: str
) -> None:
    document = clairvoyant_description(clairvoyant.with_name("c.onnx").name)
    document[section] |= changes
    model = read_onnx(write_description(document, tmp_path / "wrong.yaml"), TWO).load()
    with pytest.raises(TeacherError, match=message):
        model.to_inference(CPU)


@pytest.mark.usefixtures("clairvoyant")
def test_files_that_are_missing_broken_or_others_are_named(tmp_path: Path) -> None:
    document = clairvoyant_description("c.onnx")
    other = write_description({**document, "sha256": "0" * 64}, tmp_path / "other.yaml")
    with pytest.raises(TeacherError, match=r"c\.onnx: expected the file of sha256 0000"):
        read_onnx(other, TWO)
    (tmp_path / "text.onnx").write_text("not a graph")
    broken = read_onnx(write_description({**document, "file": "text.onnx"}, tmp_path / "b.yaml"), TWO).load()
    with pytest.raises(TeacherError, match="expected an ONNX file that can be run"):
        broken.to_inference(CPU)
    with pytest.raises(TeacherError, match=r"none\.onnx: expected the teacher's file, but there is none"):
        read_onnx(write_description({**document, "file": "none.onnx"}, tmp_path / "n.yaml"), TWO)


def test_a_taken_teacher_depends_on_nothing_outside_its_folder(clairvoyant: Path, tmp_path: Path) -> None:
    weights = tmp_path / "runs" / "teacher.safetensors"
    import_onnx(clairvoyant, TWO, weights)
    original = read_onnx(clairvoyant, TWO)
    sha256 = sha256_of_file(original.weights)
    original.weights.unlink()
    taken = open_model(weights, TWO)
    assert (taken.spec, taken.architecture) == (original.spec, original.architecture)
    assert sha256_of_file(taken.weights) == sha256
    taken.load().to_inference(CPU)


def test_a_gfl_is_found_by_its_weights_or_its_description(gfl: GFL, tmp_path: Path) -> None:
    save_detector(gfl, tmp_path / "teacher.safetensors", {})
    by_weights, by_description = (
        open_model(tmp_path / f"teacher.{suffix}", CATEGORIES) for suffix in ("safetensors", "json")
    )
    assert by_weights == by_description
    assert by_weights.spec == gfl.spec


def test_classes_of_other_names_or_in_another_order_are_refused(
    gfl: GFL, clairvoyant: Path, tmp_path: Path
) -> None:
    swapped = tuple(
        Category(category_id=c.category_id, name=other.name)
        for c, other in zip(CATEGORIES, CATEGORIES[::-1], strict=True)
    )
    save_detector(gfl, tmp_path / "teacher.safetensors", {"classes": CATEGORIES})
    open_model(tmp_path / "teacher.json", CATEGORIES)
    with pytest.raises(TeacherError, match="trained for other classes than the dataset's: expected class"):
        open_model(tmp_path / "teacher.json", swapped)
    read_onnx(clairvoyant, TWO)
    renamed = (Category(category_id=TWO[0].category_id, name="other"), *TWO[1:])
    with pytest.raises(
        TeacherError, match=r"classes: expected one class 'other' \(id \d\) as in the dataset, but got"
    ):
        read_onnx(clairvoyant, renamed)
